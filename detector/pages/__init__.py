"""The pages of the detector for people, and its data as files; static, without JavaScript."""

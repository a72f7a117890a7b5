"""The pages, lists and feed beside the exports, made of their manifests."""

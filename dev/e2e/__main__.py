"""End to end: the packages on a real Debian with the real systemd, in a container. `make e2e`.

    python -m dev.e2e FOLDER RELEASE PACKAGES

FOLDER keeps what is made once; the folder PACKAGES has the packages to test. It ends with an error
if anything is not as a sysadmin would expect it.
"""

import sys
import tempfile
from pathlib import Path

from dev.e2e.container import base_system, running
from dev.e2e.geoip import damage_as_2_0_0_did, keep_out_of_the_folder_of_the_api, let_geoip_in
from dev.e2e.installation import (
    configure,
    give_as_credential,
    look_at_installation,
    prune_after_backups,
)
from dev.e2e.ooni_api import OoniApi
from dev.e2e.permissions import (
    expect_defaults_without_a_file,
    keep_for_root,
    run_by_hand_first,
)
from dev.e2e.repository import install_from_repository
from dev.e2e.restarts import restart_and_tell
from dev.e2e.services import let_timer_fire, probe_sandbox, run_services, stop_database
from dev.e2e.steps import expect
from dev.e2e.tools import backup_tool, detector, tools_for, upstream
from dev.e2e.upgrades import (
    remove_and_purge,
    upgrade_from_old_packages,
    upgrade_with_edited_conffiles,
)
from dev.embedded_clickhouse import EmbeddedClickHouse
from dev.servers.git import GitServer
from dev.servers.misbehaving import MisbehavingServer
from dev.servers.s3 import S3Server


def main() -> None:
    """Test the packages of a folder on one release of Debian."""
    folder, release, packages = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3])
    archive = base_system(folder, release)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as name:
        scratch = Path(name)
        with (
            EmbeddedClickHouse(scratch / "clickhouse") as clickhouse,
            MisbehavingServer(tls="private-ca") as https,
            GitServer(upstream(scratch)) as git,
            S3Server() as s3,
            running(archive, scratch) as container,
        ):
            (container.root / "etc/ssl/private-ca.pem").write_bytes(https.ca_file.read_bytes())
            tools = [
                *tools_for(scratch, clickhouse, https, git),
                backup_tool(clickhouse, s3),
                detector(clickhouse),
            ]
            api = OoniApi(container)
            damage_as_2_0_0_did(container, scratch, api)
            upgrade_from_old_packages(container, packages, scratch)
            let_geoip_in(container, api)
            look_at_installation(container)
            configure(container, tools)
            run_by_hand_first(container, tools)
            keep_for_root(container, tools)
            expect_defaults_without_a_file(container)
            give_as_credential(container, tools)
            prune_after_backups(container)
            owners, failures = api.owners_and_modes(), api.failures()
            run_services(container, tools)
            expect(api.owners_and_modes() == owners, "the folder of the API is as it was")
            probe_sandbox(container)
            let_timer_fire(container)
            restart_and_tell(container)
            stop_database(container, tools, clickhouse)
            keep_out_of_the_folder_of_the_api(container, api)
            expect(api.failures() == failures, "the API could spool all the time")
            upgrade_with_edited_conffiles(container, packages, scratch)
            remove_and_purge(container, api)
        install_from_repository(archive, release, packages, scratch)
    print(f"\nEnd to end on Debian {release}: everything is as it should be.")


if __name__ == "__main__":
    main()

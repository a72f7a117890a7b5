"""The GeoIP downloader beside the API, whose folder 2.0.0 took away."""

import shutil
from pathlib import Path

from dev.e2e.container import Container
from dev.e2e.ooni_api import LET_IN, OoniApi
from dev.e2e.steps import expect, title
from dev.e2e.upgrades import build_old_package

# What 2.0.0 did to the folder of the API, and what it left there.
OLD_GEOIP_UNIT = """\
User=ooni
Group=ooni
StateDirectory=ooniapi
UMask=0022
"""
OLD_GEOIP_POSTINST = """\
#!/bin/sh
set -e
echo 'u ooni - "OONI backend tools" /nonexistent /usr/sbin/nologin' | systemd-sysusers -
systemctl daemon-reload
systemctl start ooni-download-geoip
cd /var/lib/ooniapi
runuser -u ooni -- tee asn.mmdb cc.mmdb asn.mmdb.previous .cc.mmdb.new geoipdbts < /etc/hostname
echo '{}' | runuser -u ooni -- tee ooni_download_geoip.json ooni_download_geoip.lock
"""


def damage_as_2_0_0_did(container: Container, scratch: Path, api: OoniApi) -> None:
    """Install a package like ooni-geoip 2.0.0: its first start takes the folder from the API."""
    title("ooni-geoip 2.0.0 takes the folder of the API away")
    units = {"ooni-download-geoip": f"ooni-geoip\n{OLD_GEOIP_UNIT}"}
    old = build_old_package(scratch, "ooni-geoip", "2.0.0", units, OLD_GEOIP_POSTINST)
    shutil.copy(old, container.root / "srv/old-geoip.deb")
    owners = api.owners_and_modes()
    container.run("dpkg -i /srv/old-geoip.deb")
    api.wait_until("failed")
    expect(api.owners_and_modes() != owners, "all of it is another user's")
    container.run("touch /var/lib/ooniapi/measurements/of-root")


def let_geoip_in(container: Container, api: OoniApi) -> None:
    """After the upgrade the API has its folder again, and can spool; then let the tool in."""
    api.wait_until("spooled")
    failures = api.failures()
    api.wait_until("spooled")
    expect(api.failures() == failures, "the API can spool again")
    print(api.owners_and_modes())
    expected = """\
d ooniapi:ooniapi 755 /var/lib/ooniapi
d ooniapi:ooniapi 755 /var/lib/ooniapi/measurements
d ooniapi:ooniapi 755 /var/lib/ooniapi/measurements/incoming
f ooniapi:ooniapi 640 /var/lib/ooniapi/measurements/private
f root:root 644 /var/lib/ooniapi/measurements/of-root
l ooniapi:ooniapi 777 /var/lib/ooniapi/measurements/link
l ooniapi:ooniapi 777 /var/lib/ooniapi/measurements/links
"""
    expect(api.owners_and_modes() == expected, "what was taken is given back, nothing else")
    expect(api.taken() == "", "the spool, too")
    owners = container.output("stat -c %U /etc /etc/passwd /etc/hostname").split()
    expect(set(owners) == {"root"}, "no link was followed")
    state = container.output("stat -c '%n %U:%G %s' /var/lib/ooni-geoip/* /var/lib/ooni-geoip")
    expect(
        state.splitlines()[0] == "/var/lib/ooni-geoip/ooni_download_geoip.json ooni:ooni 3",
        f"the state has moved: {state}",
    )
    container.run(LET_IN)


def keep_out_of_the_folder_of_the_api(container: Container, api: OoniApi) -> None:
    """Where the service may not write, it says what to type; as the API's user it needs nothing."""
    title("a folder that the GeoIP downloader may not write, or that is missing")
    container.run("setfacl -b /var/lib/ooniapi")
    owners = api.owners_and_modes()
    expect_78(container, f"ooni can't write there; run: {LET_IN} (or ")
    expect(api.owners_and_modes() == owners, "nothing is changed")
    drop_in = container.root / "etc/systemd/system/ooni-download-geoip.service.d/user.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nUser=ooniapi\n")
    container.run("rm /var/lib/ooniapi/asn.mmdb; systemctl daemon-reload")
    container.run("systemctl start ooni-download-geoip")
    installed = container.output("stat -c '%U %a' /var/lib/ooniapi/asn.mmdb").strip()
    expect(installed == "ooniapi 644", f"it can run as the user of the API: {installed}")
    expect(api.owners_and_modes() == owners, "nothing else is changed")
    shutil.rmtree(drop_in.parent)
    api.wait_until("spooled")
    container.run("systemctl daemon-reload; systemctl stop ooni-api")
    container.run("mv /var/lib/ooniapi /var/lib/elsewhere")
    expect_78(container, "missing; unless the API's installation makes it, run: install -d -o ooni")
    container.run("mv /var/lib/elsewhere /var/lib/ooniapi; systemctl start ooni-api")
    container.run("systemctl reset-failed")


def expect_78(container: Container, line: str) -> None:
    """Start the GeoIP downloader, which ends with 78 and logs the line as its last."""
    container.run("systemctl start ooni-download-geoip", check=False)
    status = container.output("systemctl show -P ExecMainStatus ooni-download-geoip").strip()
    last = container.journal("ooni_download_geoip", "-p err -o cat").splitlines()[-1:]
    print(*last)
    expect(status == "78" and line in "".join(last), f"status {status}: {line}")

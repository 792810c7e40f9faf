"""Tickets for jobs, from a real KDC, accepted by a real service."""

import contextlib
import ipaddress
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from harness import BASE, CLIENTS, Sandbox, docker, job, wait_for
from remote_engine import SOCKET, by_tcp, there

pytestmark = pytest.mark.engine

REALM = "TEST.LOCAL"
PROGRAMS = ("krb5kdc", "kadmin.local", "gss-server")


@dataclass(frozen=True)
class Kdc:
    """A realm with the users alice and brief, whose tickets last six seconds; and a service for them."""

    folder: Path
    address: str
    service_port: int

    @property
    def settings(self) -> str:
        return (self.folder / "krb5.conf").read_text()

    def keytab(self, principal: str) -> bytes:
        return (self.folder / f"{principal}.keytab").read_bytes()


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def answers(address: str, port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((address, port), 5):
        return True
    return False


@pytest.fixture(scope="module")
def kdc() -> Iterator[Kdc]:
    """On the address of the host that containers reach."""
    path = f"/usr/sbin:/usr/bin:/sbin:{os.environ['PATH']}"
    if os.getuid() != 0 or not all(shutil.which(program, path=path) for program in PROGRAMS):
        reason = "needs root, krb5-kdc, krb5-admin-server and krb5-gss-samples"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    # An engine that found its bridge made already does not know the gateway: it is the first address.
    subnet = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}")
    address = str(ipaddress.ip_network(subnet)[1])
    folder = Path(tempfile.mkdtemp(prefix="skelebot-kdc-"))
    folder.chmod(0o755)
    port, service_port = free_port(address), free_port(address)
    write_settings(folder, address, port)
    env = {"PATH": path, "KRB5_CONFIG": f"{folder}/krb5.conf", "KRB5_KDC_PROFILE": f"{folder}/kdc.conf"}
    for words in (
        ("kdb5_util", "create", "-s", "-P", "masterpw", "-r", REALM),
        ("kadmin.local", "addprinc", "-randkey", "alice"),
        ("kadmin.local", "addprinc", "-randkey", "-maxlife", "6 seconds", "brief"),
        ("kadmin.local", "addprinc", "-randkey", f"trade/{address}"),
        *(
            ("kadmin.local", "ktadd", "-k", f"{folder}/{name.partition('/')[0]}.keytab", name)
            for name in ("alice", "brief", f"trade/{address}")
        ),
    ):
        subprocess.run(words, env=env, check=True, capture_output=True)
    servers = [
        subprocess.Popen(("krb5kdc", "-n"), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    ]
    service = ("gss-server", "-port", str(service_port), f"trade@{address}")
    env |= {"KRB5_KTNAME": f"{folder}/trade.keytab"}
    servers.append(subprocess.Popen(service, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    for each in (port, service_port):
        wait_for(partial(answers, address, each))
    yield Kdc(folder, address, service_port)
    for server in servers:
        server.terminate()
        server.wait()
    shutil.rmtree(folder)


def write_settings(folder: Path, address: str, port: int) -> None:
    (folder / "krb5.conf").write_text(
        f"""\
[libdefaults]
    default_realm = {REALM}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
[realms]
    {REALM} = {{
        kdc = {address}:{port}
    }}
"""
    )
    (folder / "kdc.conf").write_text(
        f"""\
[kdcdefaults]
    kdc_listen = {address}:{port}
    kdc_tcp_listen = {address}:{port}
[realms]
    {REALM} = {{
        database_name = {folder}/principal
        key_stash_file = {folder}/stash
        max_life = 1h
        max_renewable_life = 1d
    }}
"""
    )


@pytest.fixture(scope="module")
def with_client() -> str:
    """A base image that has the client already, and one of the service's."""
    image = "skelebot-test/kerberos:bookworm"
    install = "apt-get update && apt-get install -y --no-install-recommends krb5-user krb5-gss-samples"
    text = f"FROM {BASE}\nRUN DEBIAN_FRONTEND=noninteractive && export DEBIAN_FRONTEND && {install}\n"
    build = (CLIENTS[0], "build", "--tag", image, "-")
    subprocess.run(build, input=text.encode(), check=True, capture_output=True)
    return image


@pytest.fixture
def project(sandbox: Sandbox, kdc: Kdc, with_client: str) -> Sandbox:
    sandbox = sandbox.with_env(SKELEBOT_BASE_IMAGE=with_client)
    sandbox.write("krb5.conf", kdc.settings)
    sandbox.write("secrets/alice.keytab", kdc.keytab("alice"), 0o600)
    return sandbox


def configure(sandbox: Sandbox, name: str, *jobs: str, user: str = "alice", more: str = "") -> None:
    lines = [f"name: {name}", "jobs:", *(f"- {one}" for one in jobs), more]
    lines += ["components:", "  kerberos:", "    krbConf: krb5.conf", f"    keytab: secrets/{user}.keytab"]
    sandbox.write("skelebot.yaml", "\n".join([*lines, f"    hdfsUser: {user}"]) + "\n")


def test_a_job_has_a_ticket_that_a_service_accepts(project: Sandbox, kdc: Kdc, name: str) -> None:
    service = f"gss-client -port {kdc.service_port} {kdc.address} trade@{kdc.address} hello"
    configure(
        project,
        name,
        job("klist", "klist"),
        job(f"echo $1; {service}", "use", args="[{name: a}]"),
        job("exit 7", "fails"),
        job("cat /run/secrets/krb5.keytab >/dev/null && ! touch /run/secrets/krb5.keytab", "mounted"),
    )
    shown = project.ok("klist")
    assert f"Default principal: alice@{REALM}" in shown
    used = project.run("use", "a $b 'c'")
    assert used.code == 0, used
    assert used.out.startswith("a $b 'c'\n")
    assert "Signature verified." in used.out
    assert project.run("fails").code == 7
    assert project.run("mounted").code == 0


def test_included_settings_come_along(project: Sandbox, kdc: Kdc, name: str) -> None:
    """As where the system's krb5.conf has little but an includedir."""
    head, realms = kdc.settings.split("[realms]")
    project.write("etc/defaults", head)
    project.write("etc/realm.conf", f"[realms]{realms}")
    project.write("etc/realm.conf.rpmsave", "no settings")
    project.write(
        "krb5.conf", f"includedir {project.root}/etc/\n[libdefaults]\n    default_realm = ELSEWHERE\n"
    )
    service = f"gss-client -port {kdc.service_port} {kdc.address} trade@{kdc.address} hello"
    configure(project, name, job(service))
    assert "Signature verified." in project.ok("run")


def test_the_keytab_is_in_no_layer(project: Sandbox, kdc: Kdc, name: str) -> None:
    (project.root / "link.keytab").symlink_to("secrets/alice.keytab")
    more = f"ignores: ['!secrets/*']\nbaseImage: {BASE}"  # one without the client
    configure(project, name, job("klist -V >&2; find /app; echo wrote >/app/made", "list"), more=more)
    listed = project.ok("list")
    assert "/app/secrets\n" in listed
    assert "alice.keytab" not in listed
    image = f"{name}:latest"
    key = kdc.keytab("alice")[-48:]
    assert key in kdc.keytab("alice")
    saved = project.root.parent / "image.tar"
    docker("save", "-o", str(saved), image)
    assert key not in saved.read_bytes()
    assert "alice.keytab" not in docker("history", "--no-trunc", image)
    label = '{{index .Config.Labels "skelebot.keytab"}}'
    assert docker("inspect", "--format", label, image) == "/run/secrets/krb5.keytab"


def test_on_the_engine_of_another_machine(project: Sandbox, kdc: Kdc, with_client: str, name: str) -> None:
    """The keytab goes into the container alone, and is gone with it; what the job writes comes back."""
    project.write("out/old", "")
    service = f"gss-client -port {kdc.service_port} {kdc.address} trade@{kdc.address} hello"
    with by_tcp(project, name) as far:
        loads = subprocess.Popen((CLIENTS[0], "--host", SOCKET, "load"), stdin=subprocess.PIPE)
        subprocess.run((CLIENTS[0], "save", with_client), stdout=loads.stdin, check=True)
        loads.communicate()
        configure(far, name, job(f"{service} >out/said", mappings="[out/]"))
        result = far.run("run")
        assert result.code == 0, result
        assert "Signature verified." in far.read("out/said")
        assert there("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""
        volumes = there("volume", "ls", "-q", "--filter", f"label=skelebot.project={name}").split()
        assert len(volumes) == 1  # that of out/


def test_a_ticket_is_renewed_while_the_job_runs(project: Sandbox, kdc: Kdc, name: str) -> None:
    project.write("secrets/brief.keytab", kdc.keytab("brief"), 0o600)
    show = "klist | grep krbtgt"
    source = f"{show}; for i in $(seq 10); do klist -s || echo expired; sleep 1; done; {show}"
    configure(project, name, job(source), user="brief")
    first, last = project.ok("run").splitlines()
    assert first != last


def test_a_job_gets_its_signals_and_leaves_nothing(project: Sandbox, name: str) -> None:
    configure(project, name, job("trap 'echo tidied; exit 9' INT; echo begun; while sleep 0.1; do :; done"))
    child = project.start("run", stdout=subprocess.PIPE)
    assert child.stdout
    assert child.stdout.readline() == b"begun\n"
    child.send_signal(2)
    assert child.stdout.read() == b"tidied\n"
    assert child.wait(60) == 130
    assert docker("ps", "-aq", "--filter", f"label=skelebot.project={name}") == ""


@pytest.mark.parametrize("form", ["CMD", "ENTRYPOINT"])
def test_the_bare_image_gets_a_ticket_too(project: Sandbox, kdc: Kdc, name: str, form: str) -> None:
    project.write("show.sh", 'klist | grep Default; echo "$@"\n')
    params = "[{name: word, default: given}]"
    configure(
        project,
        name,
        job("show.sh", params=params),
        more=f"primaryJob: run\nprimaryExe: {form}\nuser: nobody",
    )
    principal = f"Default principal: alice@{REALM}\n"
    assert project.ok("run", "--word", "mine") == f"{principal}--word mine\n"
    readable = project.root.parent / "readable.keytab"
    readable.write_bytes(kdc.keytab("alice"))
    readable.chmod(0o644)
    keytab = ("-v", f"{readable}:/run/secrets/krb5.keytab:ro")
    words = ("--word", "typed words") if form == "ENTRYPOINT" else ()
    shown = "--word typed words" if form == "ENTRYPOINT" else "--word given"
    assert docker("run", "--rm", *keytab, f"{name}:latest", *words) == f"{principal}{shown}"
    done = subprocess.run(("docker", "run", "--rm", f"{name}:latest"), capture_output=True, text=True)
    assert done.returncode == 1
    assert "the keytab is missing; mount it: docker run -v KEYTAB:/run/secrets/krb5.keytab:ro" in done.stderr


def test_native_runs_are_not_wrapped(project: Sandbox, name: str) -> None:
    configure(project, name, job("echo native"))
    (project.root / "secrets/alice.keytab").unlink()
    assert project.ok("-n", "run") == "native\n"


def test_what_can_be_wrong(project: Sandbox, kdc: Kdc, name: str) -> None:
    """One clear error each, and the job does not start."""
    configure(project, name, job("echo started"))
    project.ok("run")

    def refused(code: int, text: str) -> None:
        result = project.run("run")
        assert (result.code, result.out, len(result.errors)) == (code, "", 1), result
        assert text in result.err

    project.write("secrets/alice.keytab", kdc.keytab("brief"))
    refused(1, "kerberos: no ticket for alice: Keytab contains no suitable keys for alice@TEST.LOCAL")
    project.write("secrets/alice.keytab", b"nonsense")
    refused(1, "kerberos: no ticket for alice: Unsupported key table format version number")
    project.write("secrets/alice.keytab", kdc.keytab("alice"))
    configured = project.read("skelebot.yaml")
    project.write("skelebot.yaml", configured.replace("hdfsUser: alice", "hdfsUser: nobody@TEST.LOCAL"))
    refused(1, "kerberos: no ticket for nobody@TEST.LOCAL: ")
    project.write("skelebot.yaml", configured)
    project.write("krb5.conf", kdc.settings.replace(f"kdc = {kdc.address}:", "kdc = 127.0.0.1:"))
    refused(1, "Cannot contact any KDC for realm 'TEST.LOCAL'")
    project.write("krb5.conf", kdc.settings)
    (project.root / "secrets/alice.keytab").unlink()
    refused(2, "secrets/alice.keytab does not exist; get a keytab from your KDC")
    (project.root / "krb5.conf").unlink()
    project.write("secrets/alice.keytab", kdc.keytab("alice"))
    refused(2, "krb5.conf cannot be read: no such file or directory; use one that you can read")
    assert project.run("-h").code == 0


def test_jupyter_without_a_ticket(project: Sandbox, name: str) -> None:
    project.write("own", f"FROM {BASE}\n")  # which has no client
    configure(project, name, job("true"), more="dockerfile: own")
    result = project.run("jupyter", "--port", "18988")
    assert (result.code, result.out, len(result.errors)) == (1, "", 1), result
    assert "(exit code 1): kerberos: the image has no kinit; add krb5-user to it" in result.errors[0]

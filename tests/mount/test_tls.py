"""https with an authority of our own, and the way through a proxy."""

import os
import shutil
import urllib.parse

import harness
import pytest
from proxy import Proxy

FILES = {"config.json": b"{}\n", "weights.safetensors": bytes(range(256)) * 8000}


@pytest.fixture(scope="module")
def tls_hub():
    with harness.Hub(tls=True) as hub:
        yield hub


@pytest.fixture
def box(tls_hub, make_box):
    """A world whose Hub speaks https."""
    yield from make_box(tls_hub)


@pytest.fixture
def authority(box):
    return copy_of_authority(box)


def copy_of_authority(box):
    """The path of the authority's certificate, where the box's user may read it."""
    path = os.path.join(box.dir, "authority.pem")
    shutil.copyfile(box.hub.ca, path)
    os.chmod(path, 0o644)
    return path


def targets(hub):
    """host:port of the Hub and of the data origin."""
    return urllib.parse.urlsplit(hub.endpoint).netloc, urllib.parse.urlsplit(hub.data).netloc


@pytest.mark.parametrize("variable", ["CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_reads_and_publishes_with_the_authority_that_the_environment_names(box, authority, variable):
    repo = box.repo(FILES)
    mount = box.mount(repo.uri, env={variable: authority})
    assert mount.read("main/weights.safetensors") == FILES["weights.safetensors"]
    big = os.urandom(2_000_000)
    mount.write("main/new.safetensors", big)
    box.hugfs("commit", mount.path("main"))
    assert repo.content("new.safetensors") == big


def test_the_option_names_the_authority_too(box, authority):
    repo = box.repo(FILES)
    mount = box.mount(repo.uri, f"ca_file={authority}", env={"SSL_CERT_FILE": "/nowhere.pem"})
    assert mount.read("main/config.json") == b"{}\n"


def refused(box, *options, env=None):
    """The sentence with which a mount is refused, in good time."""
    box.expect("no secure connection|proxy|cannot be reached")
    repo = box.repo(FILES)
    argv = [repo.uri, box.folder("refused")] + [word for option in options for word in ("-o", option)]
    result = box.hugfs(*argv, check=False, env=env, timeout=10)
    assert result.status != 0
    return result.err


def test_a_certificate_of_a_stranger_is_named_with_the_cure(box):
    message = refused(box)
    assert box.hub.endpoint in message and "issuer" in message and "ca_file=" in message, message


def test_an_authority_that_is_no_file_is_named(box):
    assert "/nowhere.pem" in refused(box, "ca_file=/nowhere.pem")


def test_a_certificate_for_another_name_is_refused(box, authority):
    other = box.hub.endpoint.replace("127.0.0.1", "localhost")
    message = refused(box, env={"SSL_CERT_FILE": authority, "HF_ENDPOINT": other})
    assert other in message and "matches target host name" in message, message


@pytest.mark.parametrize("origin", ["hub", "data"])
def test_an_expired_certificate_is_named(make_box, origin):
    with harness.Hub(tls=True, expired=origin) as hub:
        for box in make_box(hub):
            hub.trust.check_hostname, hub.trust.verify_mode = False, 0
            env = {"SSL_CERT_FILE": copy_of_authority(box)}
            if origin == "hub":
                message = refused(box, env=env)
            else:
                box.expect("no secure connection|expired")
                mount = box.mount(box.repo(FILES).uri, env=env)
                assert mount.outcome("open('main/weights.safetensors', 'rb').read()") == "EIO"
                message = mount.stderr()
            where = hub.endpoint if origin == "hub" else hub.data
            assert where in message and "certificate has expired" in message, message


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("credentials", [None, "somebody:pass-word"])
def test_everything_goes_through_the_proxy(box, authority, variable, credentials):
    repo = box.repo(FILES)
    with Proxy(credentials) as proxy:
        mount = box.mount(repo.uri, env={"SSL_CERT_FILE": authority, variable: proxy.url})
        assert mount.read("main/weights.safetensors") == FILES["weights.safetensors"]
        assert set(proxy.tunnels) == {(target, 200) for target in targets(box.hub)}
        assert "pass-word" not in mount.stderr()
        mount.unmount()


def test_no_proxy_is_obeyed(box, authority):
    repo = box.repo(FILES)
    hub, data = targets(box.hub)
    with Proxy() as proxy:
        mount = box.mount(repo.uri, env={"SSL_CERT_FILE": authority, "https_proxy": proxy.url,
                                         "no_proxy": "localhost"})
        assert mount.read("main/weights.safetensors") == FILES["weights.safetensors"]
        assert set(proxy.tunnels) == {(hub, 200)}
        mount.unmount()


def test_a_proxy_that_wants_a_password_is_named(box, authority):
    with Proxy("somebody:pass-word") as proxy:
        url = proxy.url.replace("pass-word", "wrong-word")
        message = refused(box, env={"SSL_CERT_FILE": authority, "https_proxy": url})
    assert "407" in message and "https_proxy" in message and "wrong-word" not in message, message


def test_a_proxy_that_is_not_there_is_named(box, authority):
    with Proxy() as proxy:
        address = proxy.address
    message = refused(box, env={"SSL_CERT_FILE": authority, "https_proxy": f"http://{address}"})
    assert "cannot be reached" in message and "proxy" in message, message

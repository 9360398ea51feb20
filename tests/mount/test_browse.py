"""What the folders of a mount show: revisions, trees, the whole Hub, attributes."""

import hashlib

import pytest

import harness

FILES = {
    "README.md": b"# A model\n",
    "config.json": b'{"a": 1}\n',
    "empty.txt": b"",
    "weights.bin": bytes(range(256)) * 9000,  # LFS by .gitattributes
    "sub/deep/er/leaf.txt": b"leaf\n",
    "a b#c?%25.txt": b"an evil name\n",
    "sub/ünï ☃.txt": "snow\n".encode(),
}
EVERYWHERE = {".gitattributes"}


@pytest.fixture
def repo(box, hub):
    """A repository with every kind of revision; each holds a file that names it."""
    repo = box.repo(FILES)
    hub.tag(repo.id, "v1")
    hub.branch(repo.id, "dev")
    hub.branch(repo.id, "feature/x")
    for branch in ("dev", "feature/x", "main"):
        repo.push({"which.txt": branch.encode()}, branch)
    hub.commit(repo.id, {"which.txt": b"a pull request"}, create_pr=True)
    hub.branch(repo.id, "parquet")
    repo.push({"which.txt": b"converted"}, "parquet")
    hub.set_ref(repo.id, "refs/convert/parquet", "parquet")
    hub.set_ref(repo.id, "refs/heads/parquet", None)
    return repo


def digests(mount, path):
    """{path: SHA-256} as `sha256sum` sees a folder of the mount."""
    text = mount.sh(f"cd '{path}' && find . -type f -print0 | xargs -0 sha256sum -z")
    return {line[66 + 2:]: line[:64] for line in text.split("\0")[:-1]}


def git_digests(repo, rev):
    paths = repo.hub.paths(repo.id, rev, repo.type)
    return {path: hashlib.sha256(repo.content(path, rev)).hexdigest() for path in paths}


def test_the_root_lists_the_revisions(mount, repo):
    m = mount(repo.uri)
    assert m.ls() == ["dev", "feature", "main", "refs", "v1"]
    assert m.ls("feature") == ["x"]
    assert m.ls("refs") == ["convert", "pr"]
    assert m.ls("refs/pr") == ["1"]
    assert m.ls("refs/convert") == ["parquet"]
    assert m.read("feature/x/which.txt") == b"feature/x"


def test_a_revision_that_is_not_there_is_enoent(mount, repo):
    m = mount(repo.uri)
    for name in ("nope", "feature/y", "refs/pr/99", "refs/convert/nope", "0" * 40):
        assert m.outcome("os.stat(sys.argv[1])", name) == "ENOENT"


def test_a_commit_is_found_by_name_and_not_listed(mount, repo):
    m = mount(repo.uri)
    commit = repo.head("v1")
    assert commit not in m.ls()
    assert m.read(f"{commit}/config.json") == FILES["config.json"]
    assert m.outcome("os.mkdir(sys.argv[1])", f"{commit}/new") == "EROFS"


@pytest.mark.parametrize("folder, rev", [
    ("main", "main"), ("v1", "v1"), ("feature/x", "feature/x"), ("refs/pr/1", "refs/pr/1"),
    ("refs/convert/parquet", "refs/convert/parquet"), (None, "v1")])
def test_contents_agree_with_git(mount, repo, folder, rev):
    m = mount(repo.uri)
    assert digests(m, folder or repo.head(rev)) == git_digests(repo, rev)


def test_ls_and_cat_agree_with_git(mount, repo):
    m = mount(repo.uri)
    assert m.ls("main") == sorted({path.split("/")[0] for path in FILES} | EVERYWHERE | {"which.txt"})
    assert m.ls("main/sub") == ["deep", "ünï ☃.txt"]
    for path, data in FILES.items():
        assert m.read("main/" + path) == data
    assert m.outcome("os.listdir('main/nope')") == "ENOENT"
    assert m.outcome("os.listdir('main/config.json')") == "ENOTDIR"
    assert m.outcome("open('main/sub').read()") == "EISDIR"


@pytest.mark.parametrize("folder", ["v1", "refs/convert/parquet"])
def test_a_fixed_revision_is_read_only(mount, repo, folder):
    m = mount(repo.uri)
    for attempt in ("open(F + '/new', 'w')", "open(F + '/config.json', 'r+')", "os.mkdir(F + '/d')",
                    "os.unlink(F + '/config.json')", "os.rename(F + '/config.json', F + '/x')",
                    "os.truncate(F + '/config.json', 0)", "os.rmdir(F + '/sub')"):
        assert m.outcome(attempt.replace("F", repr(folder))) == "EROFS", attempt
    assert m.stat(folder + "/config.json").mode & 0o777 == 0o444


def test_a_source_with_a_revision_shows_its_files(mount, repo):
    m = mount(repo.uri + "@v1")
    assert "which.txt" not in m.ls() and m.read("config.json") == FILES["config.json"]


@pytest.mark.parametrize("rev, which", [
    ("feature%2Fx", b"feature/x"), ("refs/pr/1", b"a pull request"), ("refs%2Fpr%2F1", b"a pull request"),
    ("refs/convert/parquet", b"converted")])
def test_revisions_of_a_source_may_have_slashes(mount, repo, rev, which):
    assert mount(f"{repo.uri}@{rev}").read("which.txt") == which


def test_a_source_with_a_commit_and_a_folder(mount, repo):
    m = mount(f"{repo.uri}@{repo.head('v1')}/sub/deep")
    assert m.ls() == ["er"]
    assert m.read("er/leaf.txt") == b"leaf\n"


def test_a_source_below_a_branch_can_be_written(mount, repo):
    m = mount(f"{repo.uri}@main/sub", "commit_delay=0.3")
    m.write("new.txt", b"below")
    repo.wait_published()
    assert repo.content("sub/new.txt") == b"below"


def test_hf_may_be_left_out(mount, repo):
    assert mount(repo.id).read("main/config.json") == FILES["config.json"]


def test_a_tag_beside_a_branch_below_it(mount, repo, hub):
    hub.tag(repo.id, "a")
    hub.branch(repo.id, "a/b")
    m = mount(repo.uri)
    assert {"a", "a%2Fb"} <= set(m.ls())
    assert m.read("a/config.json") == m.read("a%2Fb/config.json") == FILES["config.json"]


def test_the_whole_hub_by_name(mount, box, repo, hub):
    data = box.repo({"rows.csv": b"1,2\n"}, type="dataset")
    space = box.repo({"app.py": b"pass\n"}, type="space")
    m = mount("hf://")
    assert {"datasets", "spaces"} <= set(m.ls())
    assert m.read(f"{repo.id}/which.txt") == b"main"
    assert m.read(f"{repo.id}@v1/config.json") == FILES["config.json"]
    assert m.read(f"{repo.id}@feature%2Fx/which.txt") == b"feature/x"
    assert m.read(f"{repo.id}@/feature/x/which.txt") == b"feature/x"
    assert m.ls(f"{repo.id}@") == ["dev", "feature", "main", "refs", "v1"]
    assert m.read(f"{repo.id}@/refs/pr/1/which.txt") == b"a pull request"
    assert m.read(f"{repo.id}@/{repo.head('v1')}/config.json") == FILES["config.json"]
    assert m.read(f"datasets/{data.id}/rows.csv") == b"1,2\n"
    assert m.read(f"datasets/{data.id}@main/rows.csv") == b"1,2\n"
    assert m.ls(f"spaces/{space.id}@") == ["main"]
    for name in ("user/no-such-repo", f"{repo.id}@nope", "nobody/x", f"datasets/{repo.id}", f"{repo.id}@/nope"):
        assert m.outcome("os.stat(sys.argv[1])", name) == "ENOENT", name


def test_names_that_no_repository_may_have_cost_no_request(mount, hub):
    m = mount("hf://")
    m.ls()
    seq = hub.last_seq()
    for name in (".git", ".Trash", "a--b", "user/.git", "user/a--b", "-x", "user/x.git"):
        assert m.outcome("os.stat(sys.argv[1])", name) == "ENOENT", name
    assert [item["path"] for item in hub.requests(since=seq) if "user/overview" not in item["path"]] == []


def test_a_dataset_as_the_source(mount, box):
    data = box.repo({"rows.csv": b"1,2\n"}, type="dataset")
    m = mount(data.uri)
    assert m.ls() == ["main"]
    assert m.read("main/rows.csv") == b"1,2\n"


def test_attributes_of_files_and_folders(mount, box, repo):
    m = mount(repo.uri)
    file, folder = m.stat("main/weights.bin"), m.stat("main/sub")
    assert file.size == len(FILES["weights.bin"])
    assert (file.mode, folder.mode) == (0o100644, 0o040755)
    assert (file.uid, file.gid) == (box.account.uid, box.account.gid)
    committed = int(repo.hub.git(repo.id, "log", "-1", "--format=%ct", "main"))
    assert int(file.mtime) == committed
    assert int(m.py("print(os.stat('main/weights.bin').st_blksize)")) >= 128 * 1024


def test_owner_group_and_umask_options(mount, repo):
    m = mount(repo.uri, "uid=12", "gid=34", "umask=077")
    stat = m.stat("main/config.json")
    assert (stat.uid, stat.gid, stat.mode & 0o777) == (12, 34, 0o600)
    assert m.stat("main/sub").mode & 0o777 == 0o700


def test_extended_attributes(mount, repo):
    m = mount(repo.uri)
    lfs, regular = "main/weights.bin", "main/config.json"
    assert m.xattr(lfs, "sha256") == hashlib.sha256(FILES["weights.bin"]).hexdigest()
    blob = repo.hub.git(repo.id, "rev-parse", "main:config.json").decode().strip()
    assert m.xattr(regular, "oid") == blob
    assert m.xattr(regular, "commit") == repo.head()
    assert m.xattr(regular, "revision") == "main"
    assert m.xattr(regular, "state") == "clean"
    assert "user.hugfs.oid" in m.py("print(os.listxattr('main/config.json'))")
    assert m.outcome("os.getxattr('main/config.json', 'user.other')") == "ENODATA"


def test_noxattr_answers_none(mount, repo):
    m = mount(repo.uri, "noxattr")
    assert m.outcome("os.getxattr('main/config.json', 'user.hugfs.oid')") in ("ENOTSUP", "EOPNOTSUPP", "ENODATA")


def test_statfs(mount, repo):
    m = mount(repo.uri)
    size, names = m.py("s = os.statvfs('main'); print(s.f_blocks * s.f_frsize, s.f_namemax)").split()
    assert int(size) > 0 and int(names) >= 255
    m.sh("df . >/dev/null")


def test_allow_other(root_box):
    """Root's mount, used by somebody else as the modes allow."""
    repo = root_box.repo(FILES)
    m = root_box.mount(repo.uri, "allow_other", "commit=manual")
    root_box.account = harness.Account("nobody")
    assert m.read("main/config.json") == FILES["config.json"]
    assert m.outcome("open('main/new', 'w')") == "EACCES"
    assert m.outcome("os.unlink('main/config.json')") == "EACCES"
    root_box.account = harness.Account("root")


def test_without_allow_other_nobody_else_comes_in(root_box):
    m = root_box.mount(root_box.repo(FILES).uri)
    root_box.account = harness.Account("nobody")
    assert m.run(["ls", m.dir], check=False).status != 0
    root_box.account = harness.Account("root")


def test_the_kernel_knows_its_name_and_type(mount, repo):
    m = mount(repo.uri)
    minor, options, kind, source = harness.mounts()[m.dir]
    assert (kind, source) == ("fuse.hugfs", "hugfs")
    assert {"nosuid", "nodev"} <= set(options.split(","))


def test_ro_shows_everything_and_writes_nothing(mount, repo):
    m = mount(repo.uri, "ro")
    assert "ro" in harness.mounts()[m.dir][1].split(",")
    assert m.read("main/config.json") == FILES["config.json"]
    for attempt in ("open('main/new', 'w')", "os.unlink('main/config.json')", "os.mkdir('main/d')", "os.mkdir('b')"):
        assert m.outcome(attempt) == "EROFS", attempt


def test_a_folder_of_many_pages_is_whole(mount, box, hub):
    hub.config(page_size=50)
    names = [f"file-{number:04d}.txt" for number in range(321)]
    repo = box.repo({f"many/{name}": name.encode() for name in names})
    m = mount(repo.uri)
    assert m.ls("main/many") == names
    assert m.read("main/many/file-0320.txt") == b"file-0320.txt"


def test_a_listing_that_fails_is_never_a_short_folder(mount, box, hub):
    hub.config(page_size=50)
    repo = box.repo({f"many/{number:04d}": b"x" for number in range(120)})
    m = mount(repo.uri)
    m.ls("main")
    box.expect(r"warn|err")
    hub.fault(r"/tree/.*/many.*cursor=", method="GET", skip=1, times=-1, status=403)
    assert m.outcome("os.listdir('main/many')") == "EACCES"
    hub.clear_faults()
    assert len(m.ls("main/many")) == 120


def test_a_lookup_is_one_request_at_most(mount, box, hub):
    repo = box.repo({f"d{number}/f{number}/x": b"x" for number in range(30)})
    m = mount(repo.uri)
    m.ls("main")
    seq = hub.last_seq()
    m.sh("cat main/d7/f7/x; ! cat main/d7/f7/nope 2>/dev/null; ! cat main/d7/f7/nope 2>/dev/null")
    asked = [item["path"] + "?" + item["query"] for item in hub.requests(since=seq)
             if "/tree/" in item["path"] or "/paths-info/" in item["path"]]
    assert len(asked) <= 3, asked
    assert not [item for item in asked if "recursive=true" in item]


def test_a_known_tree_costs_nothing_again(mount, repo, hub):
    m = mount(repo.uri, "poll=600")
    m.sh("ls -lR main")
    seq = hub.last_seq()
    m.sh("ls -lR main; find main -size +1c; du -s main")
    assert hub.requests(since=seq) == []


def test_a_known_tree_costs_nothing_after_remount(mount, repo, hub):
    m = mount(repo.uri)
    m.sh("ls -lR v1")
    m.unmount()
    m.restart()
    seq = hub.last_seq()
    m.sh("ls -lR v1")
    assert [item["path"] for item in hub.requests(since=seq) if "/tree/" in item["path"]] == []


def test_nothing_removes_or_renames_revisions_and_repositories(mount, repo):
    m = mount("hf://")
    for attempt in ("os.rmdir(R + '@/dev')", "os.rename(R + '@/dev', R + '@/x')", "os.rmdir(R)",
                    "os.rename(R, 'user/renamed')", "open(R + '@/file', 'w')", "os.mkdir('nobody')"):
        assert m.outcome(attempt.replace("R", repr(repo.id))) == "EPERM", attempt
    assert repo.head("dev")

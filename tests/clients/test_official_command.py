"""The unmodified `hf` command, in processes of its own."""

import os


def test_upload_and_download(hub, hf, new_id, tmp_path):
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "w.safetensors").write_bytes(os.urandom(50_000))
    (tmp_path / "up" / "t.txt").write_bytes(b"t")
    hf("upload", new_id, tmp_path / "up", "--private", "--quiet")
    hf("upload", new_id, tmp_path / "up", "--revision", "new/branch", "--quiet")
    hf("download", new_id, "--local-dir", tmp_path / "down", "--quiet")
    assert (tmp_path / "down" / "w.safetensors").read_bytes() == (tmp_path / "up" / "w.safetensors").read_bytes()
    assert hub.head(new_id, "new/branch") == hub.head(new_id)

"""The test Hub is never what is measured: its data origin beside nginx, its listings a second. Small here; the full
sizes are `python3 tests/hub/speed.py`."""

import time

import speed


def test_data_origin_gives_half_of_nginx_or_more(hub):
    assert speed.nginx_program(), "no nginx: tests/setup unpacks one"
    for parts, theirs, ours in speed.data_rates(hub, 256 << 20):
        print(f"{parts} curl: {ours / 1e6:.0f} MB/s, {ours / theirs:.2f} of nginx")
        assert ours >= speed.DATA_GOAL * theirs, (parts, theirs, ours)


def test_listings_come_at_thirty_pages_a_second_or_more(hub):
    for what, pages, seconds, files in speed.page_rates(hub, 60_000):
        print(f"{what}: {pages / seconds:.0f} pages/s")
        assert 60 <= pages <= 61 and files in (60_000, 60_001)
        assert pages >= speed.PAGES_GOAL * seconds, (what, pages, seconds)


def test_many_files_are_a_sound_repository(hub):
    hub.create_repo("user/many-files")
    commit = hub.many_files("user/many-files", "a/b", 2500, per_folder=1000, contents=7)
    assert hub.head("user/many-files") == commit
    paths = hub.paths("user/many-files")
    assert len(paths) == 2501 and "a/b/d00002/f0002499.txt" in paths
    assert hub.content("user/many-files", "a/b/d00001/f0001001.txt") == b"content 0\n"
    assert hub.git("user/many-files", "fsck", "--no-progress", "--strict") == b""


def test_a_long_line_costs_round_trips_and_a_narrow_one_time(hub):
    hub.create_repo("user/far-away")
    hub.lfs_sparse("user/far-away", "w.bin", 16_000_000)
    url = hub.request("GET", "/user/far-away/resolve/main/w.bin").headers["location"]
    hub.config(round_trip_ms=100, data_rate=8_000_000)
    connection = hub.connect()
    for trips in (2, 1):
        began = time.monotonic()
        connection.request("GET", "/api/models/user/far-away")
        assert connection.getresponse().read()
        assert trips * 0.1 <= time.monotonic() - began < trips * 0.1 + 0.09
    connection.close()
    size = 16_000_000
    assert 0.8 * size < 2 * speed.fetch(url, size, 1) < 1.2 * size  # in two seconds at 8 MB/s, but for a first burst
    hub.config(round_trip_ms=0)
    assert 0.8 * size < speed.fetch(url, size, 2) < 1.3 * size

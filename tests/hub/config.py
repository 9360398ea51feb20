"""What a test may change while the Hub runs (POST /_test/config), with the defaults.

Beside these there are the switches of switches.py, for what nobody has seen the real Hub do.
"""

import copy
import dataclasses

import switches

MIB = 1 << 20
CHOICES = {  # settings that are one of a few words
    "gzip": ("off", "chunked", "length"),
    "signature_style": ("s3", "cloudfront"),
    "xet_hash": ("off", "listed"),
}
FRACTIONS = {"rate_window_s", "action_window_s"}


def _quota():
    return {"api": 1_000_000, "resolvers": 1_000_000, "pages": 1_000_000}


def _actions():
    return {"commit": None, "create": None, "discussion": None}


def _storage():
    return {"private": None, "public": None}


@dataclasses.dataclass
class Config:
    # Signed URLs
    signature_lifetime_s: int = 3600  # of signed URLs to read; 0 makes them born expired
    upload_lifetime_s: int = 900  # the same of URLs to upload to
    signature_age_s: int = 0  # how long ago a URL was signed when it is handed out
    signature_style: str = "s3"  # X-Amz-Date and X-Amz-Expires, or (cloudfront) Expires
    # Uploads
    multipart_threshold: int = 50_000_000  # larger LFS uploads are multipart, if the client lists it
    chunk_size: int = 16_000_000  # bytes in a part
    batch_max_objects: int = 256  # objects in one LFS batch call
    max_file_size: int = 500_000_000_000  # larger LFS objects are refused
    max_put_size: int = 5_000_000_000  # in one PUT
    lfs_binary_size: int = 1_000_000  # untracked binary files above it are LFS
    lfs_any_size: int = 5_000_000  # untracked files above it are LFS
    # Commits
    max_regular_size: int = 10 * MIB  # larger files must be LFS
    max_folder_entries: int = 10_000
    max_commit_lfs_files: int = 25_000
    max_commit_bytes: int = 1_000_000_000  # of the request's body
    commit_takes_ms: int = 0  # how long a commit works under its lock, at least
    time_limit_ms: int = 60_000  # a commit that takes longer is answered 504
    # The line
    round_trip_ms: int = 0  # a new connection costs one, and each request one more
    data_rate: int = 0  # bytes a second that each connection of the data origin may send, paced by the kernel
    # Quotas; None: no limit
    rate_quota: dict = dataclasses.field(default_factory=_quota)  # requests per account, bucket and window
    rate_window_s: float = 300
    action_quota: dict = dataclasses.field(default_factory=_actions)  # per account and window
    action_window_s: float = 3600
    storage_quota: dict = dataclasses.field(default_factory=_storage)  # bytes of a namespace
    # Listings and bodies
    page_size: int | None = None  # if set: entries in a page of any listing, default and maximum
    new_ref_delay_ms: int = 0  # how long a new branch or tag is not seen
    gzip: str = "off"  # text to clients that allow gzip (gzip_trap.py)
    xet_hash: str = "off"  # of LFS files: listed as of those in Xet storage, which is not emulated, or off

    def __post_init__(self):
        for name, switch in switches.SWITCHES.items():
            setattr(self, name, switch.default)

    def update(self, values):
        """Change settings and switches; ValueError names what does not exist or has the wrong type."""
        for name, value in values.items():
            setattr(self, name, self._checked(name, value))

    def changed(self, values):
        """These settings with others for one request."""
        if not values:
            return self
        other = copy.copy(self)
        other.update(values)
        return other

    def _checked(self, name, value):
        if name not in vars(self):
            raise ValueError(f"unknown setting {name}")
        old = getattr(self, name)
        if name in switches.SWITCHES:
            switches.check(name, value)
        elif isinstance(old, dict):
            if not isinstance(value, dict) or set(value) - set(old):
                raise ValueError(f"{name} is {{{', '.join(old)}}}")
            return {**old, **value}
        elif name in CHOICES:
            if value not in CHOICES[name]:
                raise ValueError(f"{name} is one of {', '.join(CHOICES[name])}")
        elif isinstance(value, float):
            if name not in FRACTIONS:
                raise ValueError(f"{name} must be an integer")
        elif (isinstance(value, bool) or not isinstance(value, int)) and not (
            name == "page_size" and value is None
        ):
            raise ValueError(f"{name} must be an integer")
        return value

    def page(self, asked, default, maximum):
        """Entries in a page: what was asked for, within what is allowed."""
        if self.page_size:
            default = maximum = self.page_size
        return max(1, min(asked, maximum)) if asked else default

"""What a test may change while the Hub runs (POST /_test/config), with the defaults."""

import dataclasses

import switches


def _quota():
    return {"api": 1_000_000, "resolvers": 1_000_000, "pages": 1_000_000}


@dataclasses.dataclass
class Config:
    signature_lifetime_s: int = 3600  # X-Amz-Expires of signed URLs; 0 makes them born expired
    signature_age_s: int = 0  # how old X-Amz-Date already is when a URL is handed out
    multipart_threshold: int = 50_000_000  # larger LFS uploads are multipart, if the client lists it
    chunk_size: int = 16_000_000  # bytes in a part
    page_size: int | None = None  # if set: entries in a page of any listing, default and maximum
    lfs_binary_size: int = 1_000_000  # untracked binary files above it are LFS
    lfs_any_size: int = 5_000_000  # untracked files above it are LFS
    rate_quota: dict = dataclasses.field(default_factory=_quota)  # requests per bucket and window
    rate_window_s: int = 300

    def __post_init__(self):
        for name, switch in switches.SWITCHES.items():
            setattr(self, name, switch.default)

    def update(self, values):
        """Change settings and switches; ValueError names what does not exist or has the wrong type."""
        for name, value in values.items():
            if name not in vars(self):
                raise ValueError(f"unknown setting {name}")
            if name in switches.SWITCHES:
                switches.check(name, value)
            elif name == "rate_quota":
                if not isinstance(value, dict) or set(value) - set(self.rate_quota):
                    raise ValueError("rate_quota is {api, resolvers, pages}")
                value = {**self.rate_quota, **value}
            elif not isinstance(value, int) and not (name == "page_size" and value is None):
                raise ValueError(f"{name} must be an integer")
            setattr(self, name, value)

    def page(self, asked, default, maximum):
        """Entries in a page: what was asked for, within what is allowed."""
        if self.page_size:
            default = maximum = self.page_size
        return max(1, min(asked, maximum)) if asked else default

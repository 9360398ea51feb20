"""Where nobody has seen what the real Hub does: one switch for each such question, with its answers.

A client must live with every answer. A switch is set like any setting, from the command line
(`--same-name tag`) or by POST /_test/config; the code reads `config.same_name`. README.md lists
them, and a test compares the lists. Sections are those of the notes on the real Hub (hub-api.md).
"""

import collections

Switch = collections.namedtuple("Switch", "default others section meaning")

SWITCHES = {
    "rename_status": Switch(307, [308, 301, 302], "2.2", "status of the redirect from an old name"),
    "rename_hops": Switch(
        "each", ["last"], "2.2", "after several moves: one redirect for each, or one in all"
    ),
    "one_word_resolve": Switch(
        "direct", ["redirect"], "2.2", "`/gpt2/resolve/…`: answered at once, or redirected"
    ),
    "full_ref_names": Switch("refuse", ["accept"], "2.4", "`refs/heads/x` and `refs/tags/x` as a revision"),
    "short_revisions": Switch("refuse", ["accept"], "2.4", "7 to 39 hex digits of a commit as a revision"),
    "unicode_names": Switch("as_given", ["nfc"], "2.5", "names that a commit gives: kept, or normalised"),
    "list_limit": Switch(
        "clamp", ["refuse"], "3.1", "a list's `limit` above the maximum: the maximum, or 400"
    ),
    "commits_first_page": Switch(0, [1], "3.5", "`p` of the first page of commits"),
    "compare_raw": Switch("raw", ["patch"], "3.6", "`compare?raw=true`: `git diff --raw`, or a unified diff"),
    "same_name": Switch("branch", ["tag"], "3.7", "what wins where a branch and a tag have one name"),
    "tag_message": Switch("annotated", ["light"], "3.8", "what a tag with a message is in git"),
    "space_readme": Switch("none", ["written"], "3.10", "a README.md in the first commit of a space"),
    "draft_merge": Switch("refuse", ["accept"], "3.10", "merging a pull request that is a draft"),
    "merge_commit": Switch(
        "squash", ["merge"], "3.10", "a merge: one commit on the base, or one with two parents"
    ),
    "merge_conflict_status": Switch(409, [400, 412], "3.10", "status of a merge with conflicts"),
    "ended_pull_request": Switch("refuse", ["accept"], "3.10", "commits to a merged or closed pull request"),
    "duplicate_history": Switch(
        "squash", ["keep"], "3.10", "a duplicated repository: one commit, or the history"
    ),
    "duplicate_files": Switch(
        "at_once", ["later"], "3.10", "LFS files of a duplicate: there, or pending until `copies`"
    ),
    "treesize_key": Switch("size", ["totalSize"], "3.10", "the name of the number that treesize answers"),
    "tree_limit": Switch("clamp", ["refuse"], "4.1", "a `limit` above the maximum: the maximum, or 400"),
    "root_info": Switch("omit", ["describe"], "4.2", "the root (the empty path) in paths-info"),
    "private_resolve_cache": Switch("serve", ["refuse"], "5.3", "resolve-cache of a private repository"),
    "expired_body": Switch("s3", ["cloudfront"], "5.6", "what the 403 of an expired signature says"),
    "folder_resolve_status": Switch(404, [400], "5.7", "status of resolve on a folder"),
    "ignored_files": Switch("accept", ["refuse"], "6.1", "a commit with a file that `.gitignore` ignores"),
    "storage_refusal": Switch("batch", ["object"], "6.2", "no room: 403 for the LFS batch, or an error each"),
    "symlink_type": Switch("file", ["unknown"], "6.8", "the `type` of a symbolic link in trees"),
    "old_path": Switch("rename", ["refuse"], "6.8", "a line with `oldPath` and without content"),
    "cache_folder": Switch("accept", ["refuse"], "6.8", "a commit with a file below a folder `.cache`"),
    "commit_lock": Switch("branch", ["repository", "none"], "6.9", "what a commit under way locks (409)"),
    "late_commit": Switch("lands", ["fails"], "6.9", "a commit beyond the server's time limit (504)"),
    "same_content": Switch("commit", ["head", "refuse"], "6.9",
                           "a commit that changes nothing: an empty commit, the old head, or 400"),
    "read_only_status": Switch(400, [403], "6.9", "status of a commit to a tag or commit id"),
    "readme_status": Switch(400, [422], "6.9", "status of a commit with wrong metadata in README.md"),
    "action_wait": Switch("header", ["text"], "8.1", "the 429 of an action: `Retry-After`, or only text"),
    "lfs_bucket": Switch("api", ["pages", "resolvers"], "8.2", "where `.git/info/lfs` counts"),
}


def check(name, value):
    """ValueError if a switch cannot have this value."""
    switch = SWITCHES[name]
    allowed = [switch.default, *switch.others]
    if isinstance(value, bool) or value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(map(str, allowed))}")

#!/usr/bin/env python3
"""Checks what the compiler cannot: the order of modules, who may use which library, and lists kept by hand.

    check_order.py [SOURCE_ROOT]

Modules stand in one order. Includes go only to the right in it, locks are taken only from left to right, and the
meson files list sources in it. `stage_journal.c` belongs to the module `stage`. Prints every finding; exits 1 if any.
"""
import os
import re
import sys

ORDER = {
    "fs": "main cli mount control refresh ops publish schedule commit upload view inode notify stage ignore opts".split(),
    "cache": "fetch readahead tree blocks index hfcache hub http auth repo hash lock log util".split(),
}
PLACE = {name: i for i, name in enumerate(ORDER["fs"] + ORDER["cache"])}

# Header -> the files that may include it. Changing a library is then changing a file.
THIRD_PARTY = [
    (r"(linux/)?fuse", r"fs/(ops(_\w+)?\.[ch]|notify\.c|mount\.c)"),
    (r"curl/", r"cache/http(_\w+)?\.c"),
    (r"cjson/", r"cache/hub_json(_\w+)?\.c"),
    (r"sqlite3", r"cache/index\.c|(fs|tests/unit)/stage(_\w+)?\.c"),
    (r"openssl/", r"cache/hash\.c"),
    (r"cmocka", r"tests/unit/\w+\.[ch]"),
]

# Modules without a program in tests/unit, each with its reason.
NO_UNIT_TEST = {
    "main": "a verb table",
    "cli": "prints what the daemon says: tests/mount runs the verbs",
    "mount": "tests/mount mounts",
    "control": "tests/mount speaks with the daemon through it",
    "ops": "needs a kernel: tests/mount",
    "refresh": "tests/mount pushes behind the mount's back",
    "notify": "its effect is the kernel's: tests/mount",
    "view": "tests/mount lists everything that it shows",
}

# Call -> what to write instead.
BANNED = {
    "strcpy": "snprintf or memcpy", "strcat": "struct buf", "strncpy": "snprintf or memcpy", "strncat": "struct buf",
    "sprintf": "snprintf", "vsprintf": "vsnprintf", "gets": "fgets", "strtok": "strcspn or strsep",
    "atoi": "a parser that can fail", "atol": "a parser that can fail",
    "atoll": "a parser that can fail", "atof": "a parser that can fail",
    "scanf": "a parser that can fail", "fscanf": "a parser that can fail", "system": "posix_spawn",
    "popen": "posix_spawn", "tmpnam": "mkostemp", "tempnam": "mkostemp", "mktemp": "mkostemp", "alloca": "malloc",
    "rand": "util_random", "srand": "util_random", "random": "util_random", "drand48": "util_random",
    "localtime": "localtime_r", "gmtime": "gmtime_r", "asctime": "strftime", "ctime": "strftime",
    "getpwnam": "getpwnam_r", "getpwuid": "getpwuid_r", "getgrnam": "getgrnam_r", "getgrgid": "getgrgid_r",
    "readdir_r": "readdir", "sleep": "a condition", "usleep": "a condition", "nanosleep": "a condition",
    "clock_nanosleep": "a condition", "setlocale": "nothing: names are bytes", "pthread_mutex_init": "lock_init",
    "pthread_cond_init": "cond_init",
}
MAY_CALL = {
    ("cache/lock.c", "pthread_mutex_init"),
    ("fs/stage_journal.c", "pthread_mutex_init"),  # a leaf that is only tried, so it has no place in the order
    ("cache/lock.c", "pthread_cond_init"),
    ("cache/http.c", "pthread_mutex_init"),  # curl takes several of its share's locks at once, in its own order
    ("cache/blocks.c", "nanosleep"),  # another process's lock: there is no wait for it that also ends in time
}

LINES_MAX = 1000
FUNCTION_MAX = 100

findings = []


def find(path, line, text):
    findings.append(f"{path}:{line}: {text}")


def module_of(stem):
    """stage_journal -> stage; None for a file of no module."""
    while stem not in PLACE:
        if "_" not in stem:
            return None
        stem = stem.rsplit("_", 1)[0]
    return stem


def blank(match):
    """What stands for a comment or a string: as many lines, no words."""
    text = match.group()
    return "\n" * text.count("\n") if text.startswith("/") else '""'


def code_only(text):
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def check_includes(path, text):
    folder, stem = path.split("/")[0], os.path.splitext(os.path.basename(path))[0]
    here = module_of(stem)
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not match:
            continue
        header = match.group(2)
        if match.group(1) == "<":
            for pattern, allowed in THIRD_PARTY:
                if re.match(pattern, header) and not re.fullmatch(allowed, path):
                    find(path, number, f"<{header}> may be included only by {allowed}")
        elif folder in ORDER:
            there = module_of(os.path.splitext(os.path.basename(header))[0])
            if there is None:
                find(path, number, f'"{header}" is of no module')
            elif PLACE[there] < PLACE[here]:
                find(path, number, f'"{header}" stands to the left of {here} in the order of modules')


def check_code(path, text):
    code = code_only(text)
    lines = code.split("\n")
    for number, line in enumerate(lines, 1):
        for call in re.findall(r"(?<![\w.>])(\w+)\s*\(", line):
            if call in BANNED and (path, call) not in MAY_CALL:
                find(path, number, f"{call}() is not used here: write {BANNED[call]}")
    for number, line in enumerate(text.split("\n"), 1):
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            find(path, number, "unfinished: finish it or file an issue")
        if re.match(r"\s*#\s*define\s+FUSE_USE_VERSION\b", line) and not re.search(r"#\s*include\s*<fuse", text):
            find(path, number, "FUSE_USE_VERSION without a header of fuse")
    if len(lines) > LINES_MAX + 1:
        find(path, LINES_MAX + 1, f"more than {LINES_MAX} lines: split it")
    start = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            start = number
        elif line == "}" and start:
            if number - start - 1 > FUNCTION_MAX:
                find(path, start, f"a function of more than {FUNCTION_MAX} lines: split it")
            start = None


def check_head(path, text):
    stem = os.path.splitext(os.path.basename(path))[0]
    if not text.startswith("/* "):
        find(path, 1, "opens without the comment that says what it is for")
    if path.endswith(".c"):
        match = re.search(r'^#define LOG_MODULE "(\w+)"$', text, re.M)
        if not match or module_of(match.group(1)) is None or not f"{stem}_".startswith(match.group(1) + "_"):
            find(path, 1, f'LOG_MODULE is not "{module_of(stem)}"')
        elif "#include" in text[: match.start()]:
            find(path, 1, "LOG_MODULE is defined after an include")


def meson_names(root, path, suffix):
    with open(os.path.join(root, path), encoding="utf-8") as f:
        return re.findall(r"^\s*'(\w+)" + re.escape(suffix) + "',", f.read(), re.M)


def check_lists(root, files):
    for folder, modules in ORDER.items():
        stems = [os.path.splitext(os.path.basename(p))[0] for p in files if p.startswith(folder + "/") and p.endswith(".c")]
        listed = meson_names(root, f"{folder}/meson.build", ".c")
        built = listed + (["main"] if folder == "fs" else [])
        for stem in sorted(set(stems) ^ set(built)):
            find(f"{folder}/meson.build", 1, f"{stem}.c is " + ("not listed" if stem in stems else "listed, but not there"))
        places = [PLACE[module_of(stem)] for stem in listed if module_of(stem)]
        if places != sorted(places):
            find(f"{folder}/meson.build", 1, "sources are not in the order of modules")
        for module in modules:
            if f"{folder}/{module}.c" not in files:
                find(f"{folder}/{module}.c", 1, "there is no such file")
            if module != "main" and f"{folder}/{module}.h" not in files:
                find(f"{folder}/{module}.h", 1, "there is no such file")
            has_test = f"tests/unit/{module}.c" in files
            if not has_test and module not in NO_UNIT_TEST:
                find(f"tests/unit/{module}.c", 1, f"the module {module} has no unit test")
            if has_test and module in NO_UNIT_TEST:
                find(f"tests/unit/{module}.c", 1, "is there after all: take it off NO_UNIT_TEST")
    tests = {os.path.splitext(os.path.basename(p))[0] for p in files if re.fullmatch(r"tests/unit/\w+\.c", p)}
    for stem in sorted(tests ^ set(meson_names(root, "tests/unit/meson.build", ""))):
        find("tests/unit/meson.build", 1, f"{stem} is " + ("not listed" if stem in tests else "listed, but not there"))


def check_locks(root):
    with open(os.path.join(root, "cache/lock.h"), encoding="utf-8") as f:
        names = [name.lower() for name in re.findall(r"^\tLOCK_(\w+)", f.read(), re.M)]
    places = [PLACE[module_of(name)] for name in names if module_of(name)]
    if len(places) < len(names):
        find("cache/lock.h", 1, "a level is of no module")
    if places != sorted(places):
        find("cache/lock.h", 1, "levels are not in the order of modules")


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    files = []
    for folder in ("fs", "cache", "tests/unit"):
        for name in sorted(os.listdir(os.path.join(root, folder))):
            if name.endswith((".c", ".h")):
                files.append(f"{folder}/{name}")
    for path in files:
        with open(os.path.join(root, path), encoding="utf-8") as f:
            text = f.read()
        if not path.startswith("tests/") and module_of(os.path.splitext(os.path.basename(path))[0]) is None:
            find(path, 1, "is of no module: put it into ORDER, or give it a module's prefix")
            continue
        check_includes(path, text)
        if not path.startswith("tests/"):
            check_code(path, text)
            check_head(path, text)
    check_lists(root, set(files))
    check_locks(root)
    for line in findings:
        print(line)
    print(f"{len(files)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

/* scratch: the folder that a test program of the stage works in, under $TMPDIR; gone at the end of its group. */
#ifndef HUGFS_TESTS_SCRATCH_H
#define HUGFS_TESTS_SCRATCH_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"

static char tmp[4096];

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	return remove(path);
}

/* What the modules warn of is what the tests do to them: only errors are shown. */
static int make_tmp(void **state)
{
	const char *dir = getenv("TMPDIR");

	if (log_set_levels("err") < 0)
		return -1;
	snprintf(tmp, sizeof(tmp), "%s/hugfs-unit-XXXXXX", dir ? dir : "/tmp");
	return mkdtemp(tmp) ? 0 : -1;
}

static int remove_tmp(void **state)
{
	return nftw(tmp, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif

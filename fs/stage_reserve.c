/* stage_reserve: blocks of the disk that a file has beyond its end. For the journal's log: a full disk takes
 * closes, renames and deletions still. Under the stage's lock. */
#define LOG_MODULE "stage_reserve"

#include "stage_reserve.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "log.h"

#define WANT ((uint64_t)512 << 10) /* some thirty changes; it is refilled as long as there is room */
#define WANT_MIN ((uint64_t)128 << 10)
#define PARKED (256 << 10)

void stage_reserve_plan(struct stage_reserve *r, int fd)
{
	struct statvfs st;

	*r = (struct stage_reserve){0};
	if (fstatvfs(fd, &st) == 0)
		r->want = MAX(WANT_MIN, MIN(WANT, (uint64_t)st.f_bavail * st.f_frsize / 16));
}

void stage_reserve_fill(struct stage_reserve *r, int fd, uint64_t end)
{
	if (r->want == 0 || end + r->want / 2 <= r->have)
		return;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(end + r->want)) == 0) {
		r->have = end + r->want;
		r->tight = false;
	} else if (errno == ENOSPC || errno == EDQUOT) {
		r->tight = true;
	} else {
		r->want = 0;
	}
}

bool stage_reserve_is_tight(struct stage_reserve *r, int fd)
{
	if (r->tight && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(r->have + r->want)) == 0) {
		r->have += r->want;
		r->tight = false;
	}
	return r->tight;
}

void stage_reserve_park(const char *dir)
{
	AUTO_FREE char *path = util_printf("%s/reserve", dir);
	AUTO_CLOSE int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;

	/* Without it the next mount may find no room for the journal, and says so. */
	if (fd >= 0 && fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, PARKED) < 0)
		log_debug("%s: %s", path, strerror(errno));
}

void stage_reserve_unpark(const char *dir)
{
	AUTO_FREE char *path = util_printf("%s/reserve", dir);

	if (path && unlink(path) < 0 && errno != ENOENT)
		log_debug("%s: %s", path, strerror(errno));
}

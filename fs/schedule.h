/* schedule: WHEN a commit of one branch happens (design.md 3.2). Pure: it is told what happens and what
 * time it is, and answers "now", "not before then" or "nothing to do". No clock, no I/O, no lock: the
 * caller serialises.
 *
 * All times are milliseconds of one clock that never steps back. Nodes and names are only compared. */
#ifndef HUGFS_SCHEDULE_H
#define HUGFS_SCHEDULE_H

#include <stdatomic.h>

#include "util.h"

struct schedule;

enum schedule_mode {
	SCHEDULE_CLOSE,  /* after a quiet period, and on fsync */
	SCHEDULE_FSYNC,  /* on fsync only */
	SCHEDULE_MANUAL, /* only when asked */
};

/* The commits that quiet periods made lately, of all branches of a mount together. Zeroed is fresh. Any
 * thread. */
#define SCHEDULE_BRAKE_COMMITS 30
struct schedule_brake {
	atomic_uint n;
	_Atomic int64_t at_ms[SCHEDULE_BRAKE_COMMITS];
};

struct schedule_opts {
	enum schedule_mode mode;
	int64_t delay_ms;     /* commit_delay */
	int64_t interval_ms;  /* commit_interval: CLOSE commits every so often, not after a quiet period; 0: none */
	int64_t open_wait_ms; /* open_wait */
	struct schedule_brake *brake; /* borrowed */
};
int schedule_new(const struct schedule_opts *opts, struct schedule **ret) MUST_USE;
void schedule_free(struct schedule *s);
void schedule_freep(struct schedule **s);

/* -- what happened -- */

enum schedule_change { SCHEDULE_CREATED, SCHEDULE_RENAMED, SCHEDULE_DELETED };
/* A name came, is what another one was renamed to, or went. `node`: the file behind it, 0 for others. */
void schedule_changed(struct schedule *s, int64_t now, enum schedule_change what, const char *name,
                      uint64_t node);
void schedule_opened(struct schedule *s, int64_t now, uint64_t node); /* a writer came */
void schedule_wrote(struct schedule *s, int64_t now, uint64_t node, uint64_t bytes);
void schedule_closed(struct schedule *s, int64_t now, uint64_t node, bool changed); /* a writer went */
/* A writer is on its way out and waits for the commit (commit=sync): it settles as if it had gone, until it writes again. */
void schedule_closing(struct schedule *s, int64_t now, uint64_t node);

/* An fsync waits for a commit that begins (or is joined) from now on; node 0: of a folder. It is counted
 * until schedule_began or schedule_joined takes it along, or schedule_unsync takes it back. */
void schedule_fsync(struct schedule *s, int64_t now, uint64_t node);
void schedule_unsync(struct schedule *s, uint64_t node);
/* Somebody asked for a commit at once; each one is served by a commit of its own. schedule_unask takes it
 * back. */
void schedule_ask(struct schedule *s, int64_t now);
void schedule_unask(struct schedule *s);
/* It is not known whether the last commit is on the branch: to be looked for. */
void schedule_unsure(struct schedule *s, int64_t now);

/* A transaction holds the branch: until it is let go only who asks gets a commit. */
void schedule_hold(struct schedule *s, bool held);

/* -- what to do -- */

enum schedule_verdict {
	SCHEDULE_NOTHING, /* until something happens */
	SCHEDULE_WAIT,    /* ask again at *ret_wake_ms */
	SCHEDULE_COMMIT,
};
enum schedule_reason {
	SCHEDULE_ASKED,
	SCHEDULE_SYNC,
	SCHEDULE_RECOVER, /* only look for the commit that is in doubt */
	SCHEDULE_QUIET,
};
/* ret_reason is set with COMMIT, ret_wake_ms with WAIT. */
enum schedule_verdict schedule_next(struct schedule *s, int64_t now, enum schedule_reason *ret_reason,
                                    int64_t *ret_wake_ms);

/* The commit begins: a new change set, and every fsync that waits is in it. ASKED: one that asked is. */
void schedule_began(struct schedule *s, enum schedule_reason reason);
/* The fsyncs that came since joined the commit under way. */
void schedule_joined(struct schedule *s);

struct schedule_outcome {
	int err;          /* 0 or -errno */
	int retry_s;      /* the Hub said when; -1: it did not */
	bool sent;        /* a commit was made */
	bool unsure;      /* perhaps one was */
	unsigned syncs;   /* fsyncs that were in it and wait for another try */
	bool asked;       /* who asked waits for another try */
};
void schedule_done(struct schedule *s, int64_t now, const struct schedule_outcome *outcome);

/* Is it worth another try while somebody waits? (No answer, 5xx, 409: nobody's fault.) Of a negative
 * errno. */
bool schedule_transient(int err);

#endif

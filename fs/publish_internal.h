/* publish_internal: what the files of publish share: publish.c (events, failures, the clock and its runs), publish_wait.c
 * (those who wait). For publish*.c only. */
#ifndef HUGFS_PUBLISH_INTERNAL_H
#define HUGFS_PUBLISH_INTERNAL_H

#include "commit.h"
#include "lock.h"
#include "publish.h"
#include "schedule.h"

#define PUBLISH_SLEEP_MIN_MS 10

struct waiter {
	struct waiter *next;
	uint64_t id, node;
	publish_done done; /* an fsync */
	void *arg;
	bool closing;          /* a close: schedule does not know that it waits */
	struct asking *asking; /* or who asked for a commit */
	uint64_t run;          /* the last one that it was in; 0: none yet */
	int err;               /* of its last try */
	int64_t progress_ms;
	int phase;             /* as far as its runs came */
	uint64_t moved;
};

/* On the stack of publish_commit. */
struct asking {
	const struct publish_ask *ask;
	struct publish_answer answer;
	bool answered;
};

/* A file that was in a failed publication. */
struct failed {
	uint64_t node;
	bool told;
};

struct publish {
	struct publish_env env;
	struct commit *commit;
	pthread_t clock, worker;
	bool has_worker;      /* one is to be joined; the clock's own */
	struct commit_progress progress;
	atomic_bool cancel;
	struct lock lock;
	struct cond wake;     /* the clock: something happened */
	struct cond answered; /* publish_commit */
	/* -- guarded by lock -- */
	struct schedule *schedule;
	bool asleep;          /* the clock waits for an event, however long */
	struct waiter *waiters;
	uint64_t last_id;
	bool running;         /* from the decision until the clock saw the result */
	bool early;           /* it only sends ahead */
	bool early_due;       /* something large was closed */
	bool done;            /* the worker has it */
	enum schedule_reason reason;
	uint64_t run;         /* its number */
	char *title, *description;
	unsigned take; /* STAGE_TAKE_*, of the run */
	bool may_empty, resolve, ends, pr;
	enum stage_tx tx;
	bool beginning;       /* a transaction: nobody may ask any more */
	uint64_t tx_number;   /* of the last one of this mount */
	enum commit_on_conflict on_conflict;
	unsigned callers; /* inside publish_commit */
	int run_err;
	struct commit_result result;
	bool stopping, final; /* final: one more commit before the end */
	int64_t stop_ms;
	struct failed *failed; /* by node */
	size_t n_failed;
	int failed_err;
	int64_t failing_ms;   /* since when, 0: it works */
	char last_commit[41];
	char pr_url[400];
	int last_err;
	char last_text[400];
};

/* Taken from the list: the caller frees or answers it. */
struct waiter *publish_unlink_locked(struct waiter **at);
/* It is in the run under way, or will not be in the run that begins now before schedule says so. */
void publish_join_run_locked(struct publish *p, struct waiter *w);
/* commit_ask.join, on the worker: arg is the publisher. */
bool publish_join(void *arg);
/* Moves *at to the fsyncs of `out`, which are answered when the lock is dropped; who asked for a commit is answered here. */
void publish_answer_locked(struct publish *p, struct waiter **at, int err, const struct commit_result *result,
                           struct waiter **out);
/* Answers those who were in the run that ended, but for those who wait for another try: outcome tells schedule of them. */
void publish_answer_run_locked(struct publish *p, int err, const struct commit_result *result, int64_t now,
                               struct schedule_outcome *outcome, struct waiter **out);
/* Calls them back and frees them; without the lock. */
void publish_call_back(struct waiter *out);
/* Answers those who waited too long; until when the others wait at least. */
int64_t publish_expire_locked(struct publish *p, int64_t now, struct waiter **out);

#endif

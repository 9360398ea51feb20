/* lock: mutual exclusion, conditions, and that a debug build stops at a wrong order. Each mistake is made in
 * a child process, which has to end by SIGABRT. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lock.h"

struct shared {
	struct lock lock;
	struct cond cond;
	/* -- guarded by lock -- */
	int count;
	bool go;
};

static void shared_init(struct shared *s, enum lock_level level)
{
	*s = (struct shared){0};
	lock_init(&s->lock, level);
	cond_init(&s->cond);
}

static void shared_fini(struct shared *s)
{
	cond_fini(&s->cond);
	lock_fini(&s->lock);
}

static void *count_up(void *arg)
{
	struct shared *s = arg;

	for (int i = 0; i < 10000; i++) {
		LOCKED(&s->lock);
		s->count++;
	}
	return NULL;
}

static void test_exclusion(void **state)
{
	pthread_t threads[4];
	struct shared s;

	shared_init(&s, LOCK_STAGE);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count_up, &s), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(s.count, 40000);
	shared_fini(&s);
}

static void *wait_for_go(void *arg)
{
	struct shared *s = arg;

	LOCKED(&s->lock);
	while (!s->go)
		cond_wait(&s->cond, &s->lock);
	s->count++;
	cond_broadcast(&s->cond);
	return NULL;
}

static void test_condition(void **state)
{
	pthread_t threads[3];
	struct shared s;

	shared_init(&s, LOCK_STAGE);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, wait_for_go, &s), 0);
	{
		LOCKED(&s.lock);
		assert_int_equal(s.count, 0);
		s.go = true;
		cond_broadcast(&s.cond);
		while (s.count < 3)
			cond_wait(&s.cond, &s.lock);
	}
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		pthread_join(threads[i], NULL);
	shared_fini(&s);
}

static void test_timeout(void **state)
{
	int64_t start = util_now_ms();
	struct shared s;

	shared_init(&s, LOCK_STAGE);
	lock_take(&s.lock);
	while (cond_wait_ms(&s.cond, &s.lock, 30)) /* may wake early */
		continue;
	assert_true(util_now_ms() - start >= 29);
	assert_false(cond_wait_ms(&s.cond, &s.lock, 0));
	assert_false(cond_wait_ms(&s.cond, &s.lock, -5));
	lock_drop(&s.lock);
	shared_fini(&s);
}

static void *signal_it(void *arg)
{
	struct shared *s = arg;

	LOCKED(&s->lock);
	s->go = true;
	cond_signal(&s->cond);
	return NULL;
}

static void test_signalled_before_timeout(void **state)
{
	struct shared s;
	pthread_t thread;

	shared_init(&s, LOCK_STAGE);
	lock_take(&s.lock);
	assert_int_equal(pthread_create(&thread, NULL, signal_it, &s), 0);
	while (!s.go)
		assert_true(cond_wait_ms(&s.cond, &s.lock, 50000));
	lock_drop(&s.lock);
	pthread_join(thread, NULL);
	shared_fini(&s);
}

static void right_order(void)
{
	struct lock a, b, c;

	lock_init(&a, LOCK_CONTROL);
	lock_init(&b, LOCK_STAGE);
	lock_init(&c, LOCK_AUTH);
	for (int i = 0; i < 3; i++) {
		LOCKED(&a);
		LOCKED(&b);
		LOCKED(&c);
	}
	/* Hand over hand: dropped in another order than taken. */
	lock_take(&a);
	lock_take(&b);
	lock_drop(&a);
	lock_take(&c);
	lock_drop(&b);
	lock_drop(&c);
	lock_take(&a);
	lock_drop(&a);
	lock_fini(&a);
	lock_fini(&b);
	lock_fini(&c);
}

#ifndef NDEBUG

static void leftwards(void)
{
	struct lock left, right;

	lock_init(&left, LOCK_VIEW);
	lock_init(&right, LOCK_INODE);
	lock_take(&right);
	lock_take(&left);
}

static void same_level(void)
{
	struct lock one, other;

	lock_init(&one, LOCK_INODE);
	lock_init(&other, LOCK_INODE);
	lock_take(&one);
	lock_take(&other);
}

static void twice(void)
{
	struct lock l;

	lock_init(&l, LOCK_INODE);
	lock_take(&l);
	lock_take(&l);
}

static void not_held(void)
{
	struct lock l;

	lock_init(&l, LOCK_INODE);
	lock_drop(&l);
}

static void waits_with_another(void)
{
	struct lock outer, inner;
	struct cond c;

	lock_init(&outer, LOCK_INODE);
	lock_init(&inner, LOCK_STAGE);
	cond_init(&c);
	lock_take(&outer);
	lock_take(&inner);
	cond_wait_ms(&c, &inner, 1);
}

static void waits_without(void)
{
	struct lock l;
	struct cond c;

	lock_init(&l, LOCK_STAGE);
	cond_init(&c);
	cond_wait_ms(&c, &l, 1);
}

#endif

/* Signal that ended a child which did this; 0: it came back. */
static int fate_of(void (*deed)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = {0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO);
		deed();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_order(void **state)
{
	assert_int_equal(fate_of(right_order), 0);
	right_order();
#ifndef NDEBUG
	assert_int_equal(fate_of(leftwards), SIGABRT);
	assert_int_equal(fate_of(same_level), SIGABRT);
	assert_int_equal(fate_of(twice), SIGABRT);
	assert_int_equal(fate_of(not_held), SIGABRT);
	assert_int_equal(fate_of(waits_with_another), SIGABRT);
	assert_int_equal(fate_of(waits_without), SIGABRT);
#endif
}

/* A thread's levels are its own. */
static void test_levels_are_per_thread(void **state)
{
	pthread_t thread;
	struct shared s;
	struct lock right;

	shared_init(&s, LOCK_VIEW);
	lock_init(&right, LOCK_AUTH);
	lock_take(&right);
	assert_int_equal(pthread_create(&thread, NULL, signal_it, &s), 0); /* takes LOCK_VIEW */
	pthread_join(thread, NULL);
	lock_drop(&right);
	lock_fini(&right);
	shared_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exclusion), cmocka_unit_test(test_condition),
		cmocka_unit_test(test_timeout),   cmocka_unit_test(test_signalled_before_timeout),
		cmocka_unit_test(test_order),     cmocka_unit_test(test_levels_are_per_thread),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

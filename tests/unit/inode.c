/* Unit tests of fs/inode: identity of inodes over lookups, renames and pushes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "inode.h"

struct fixture {
	struct inode_table *t;
	struct rev rev;
	struct inode *root;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	assert_non_null(f);
	assert_int_equal(inode_table_new(&f->t), 0);
	struct inode_spec spec = {.kind = INODE_DIR, .rev = &f->rev, .ino = 1};
	assert_int_equal(inode_make(f->t, NULL, "", &spec, &f->root), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	inode_unref(f->t, f->root, 1);
	assert_int_equal(inode_count(f->t), 0);
	inode_table_free(f->t);
	free(f);
	return 0;
}

static struct inode *make(struct fixture *f, struct inode *dir, const char *name, enum inode_kind kind, uint64_t ino)
{
	struct inode_spec spec = {.kind = kind, .rev = &f->rev, .ino = ino};
	struct inode *i;
	assert_int_equal(inode_make(f->t, dir, name, &spec, &i), 0);
	return i;
}

static void assert_path(struct fixture *f, struct inode *i, const char *want)
{
	char *path = NULL;
	assert_int_equal(inode_path(f->t, i, &path), 0);
	assert_string_equal(path, want);
	free(path);
}

static void root_is_nodeid_1(void **state)
{
	struct fixture *f = *state;
	assert_int_equal(f->root->id, 1);
	assert_path(f, f->root, "");
}

static void found_by_name_and_id(void **state)
{
	struct fixture *f = *state;
	struct inode *a = make(f, f->root, "a", INODE_FILE, 77);
	struct inode *same = inode_find(f->t, f->root, "a");
	assert_ptr_equal(a, same);
	struct inode *by_id = inode_get(f->t, a->id);
	assert_ptr_equal(a, by_id);
	assert_null(inode_find(f->t, f->root, "b"));
	assert_null(inode_get(f->t, 999));
	inode_unref(f->t, a, 3);
}

static void gone_with_its_last_reference(void **state)
{
	struct fixture *f = *state;
	struct inode *dir = make(f, f->root, "d", INODE_DIR, 5);
	struct inode *file = make(f, dir, "f", INODE_FILE, 6);
	uint64_t id = dir->id;
	inode_unref(f->t, dir, 1); /* the child keeps it */
	assert_path(f, file, "d/f");
	inode_unref(f->t, file, 1);
	assert_null(inode_get(f->t, id));
}

static void nodeids_are_never_used_again(void **state)
{
	struct fixture *f = *state;
	struct inode *a = make(f, f->root, "a", INODE_FILE, 9);
	uint64_t id = a->id;
	inode_unref(f->t, a, 1);
	struct inode *b = make(f, f->root, "a", INODE_FILE, 9);
	assert_int_not_equal(b->id, id);
	assert_int_equal(b->ino, 9); /* but st_ino is the same again */
	inode_unref(f->t, b, 1);
}

static void a_new_version_detaches_the_old(void **state)
{
	struct fixture *f = *state;
	struct inode *old = make(f, f->root, "a", INODE_FILE, 9);
	struct inode *new = make(f, f->root, "a", INODE_FILE, 9);
	char *path = NULL;
	assert_int_not_equal(old->id, new->id);
	assert_int_not_equal(old->ino, new->ino); /* both live: another number */
	assert_int_equal(inode_path(f->t, old, &path), -ENOENT);
	assert_path(f, new, "a");
	inode_unref(f->t, old, 1);
	assert_path(f, new, "a");
	inode_unref(f->t, new, 1);
}

static void a_shared_one_is_made_once(void **state)
{
	struct fixture *f = *state;
	struct inode_spec spec = {.kind = INODE_DIR, .rev = &f->rev, .ino = 9, .shared = true};
	struct inode *a, *b;
	assert_int_equal(inode_make(f->t, f->root, "main", &spec, &a), 0);
	assert_int_equal(inode_make(f->t, f->root, "main", &spec, &b), 0);
	assert_ptr_equal(a, b);
	inode_unref(f->t, a, 2);
}

static void rename_keeps_nodeid_and_number(void **state)
{
	struct fixture *f = *state;
	struct inode *d = make(f, f->root, "d", INODE_DIR, 4);
	struct inode *a = make(f, f->root, "a", INODE_FILE, 9);
	struct inode *over = make(f, d, "b", INODE_FILE, 10);
	uint64_t id = a->id;
	assert_int_equal(inode_move(f->t, a, d, "b"), 0);
	assert_int_equal(a->id, id);
	assert_int_equal(a->ino, 9);
	assert_path(f, a, "d/b");
	assert_null(inode_find(f->t, f->root, "a"));
	assert_true(over->detached);
	/* A folder's rename moves what is below it. */
	assert_int_equal(inode_move(f->t, d, f->root, "e"), 0);
	assert_path(f, a, "e/b");
	inode_unref(f->t, over, 1);
	inode_unref(f->t, a, 1);
	inode_unref(f->t, d, 1);
}

static void below_a_detached_folder_there_is_no_path(void **state)
{
	struct fixture *f = *state;
	struct inode *d = make(f, f->root, "d", INODE_DIR, 4);
	struct inode *a = make(f, d, "a", INODE_FILE, 9);
	char *path = NULL;
	inode_detach(f->t, d);
	assert_int_equal(inode_path(f->t, a, &path), -ENOENT);
	inode_unref(f->t, a, 1);
	inode_unref(f->t, d, 1);
}

static void paths_end_at_the_revision(void **state)
{
	struct fixture *f = *state;
	struct rev other = {0};
	struct inode_spec spec = {.kind = INODE_DIR, .rev = &other, .ino = 30};
	struct inode *main_dir, *sub;
	assert_int_equal(inode_make(f->t, f->root, "main", &spec, &main_dir), 0);
	spec.ino = 31;
	assert_int_equal(inode_make(f->t, main_dir, "sub", &spec, &sub), 0);
	assert_path(f, main_dir, "");
	assert_path(f, sub, "sub");
	inode_unref(f->t, sub, 1);
	inode_unref(f->t, main_dir, 1);
}

static void tables_grow(void **state)
{
	struct fixture *f = *state;
	struct inode *all[2000];
	char name[32];
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		snprintf(name, sizeof(name), "file %zu", i);
		all[i] = make(f, f->root, name, INODE_FILE, 100 + i % 50); /* many ask for the same number */
	}
	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		snprintf(name, sizeof(name), "file %zu", i);
		struct inode *found = inode_find(f->t, f->root, name);
		assert_ptr_equal(found, all[i]);
		inode_unref(f->t, found, 2);
	}
}

static void count_one(void *arg, struct inode *i)
{
	(void)i;
	++*(int *)arg;
}

static void each_gives_those_of_one_revision(void **state)
{
	struct fixture *f = *state;
	struct inode *a = make(f, f->root, "a", INODE_FILE, 9);
	int n = 0;
	inode_each(f->t, &f->rev, count_one, &n);
	assert_int_equal(n, 2);
	n = 0;
	inode_each(f->t, NULL, count_one, &n);
	assert_int_equal(n, 0);
	inode_unref(f->t, a, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(root_is_nodeid_1, setup, teardown),
		cmocka_unit_test_setup_teardown(found_by_name_and_id, setup, teardown),
		cmocka_unit_test_setup_teardown(gone_with_its_last_reference, setup, teardown),
		cmocka_unit_test_setup_teardown(nodeids_are_never_used_again, setup, teardown),
		cmocka_unit_test_setup_teardown(a_new_version_detaches_the_old, setup, teardown),
		cmocka_unit_test_setup_teardown(a_shared_one_is_made_once, setup, teardown),
		cmocka_unit_test_setup_teardown(rename_keeps_nodeid_and_number, setup, teardown),
		cmocka_unit_test_setup_teardown(below_a_detached_folder_there_is_no_path, setup, teardown),
		cmocka_unit_test_setup_teardown(paths_end_at_the_revision, setup, teardown),
		cmocka_unit_test_setup_teardown(tables_grow, setup, teardown),
		cmocka_unit_test_setup_teardown(each_gives_those_of_one_revision, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

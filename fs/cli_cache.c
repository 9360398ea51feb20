/* cli_cache: the verb cache: what lies in the block cache, room in it, whether it is whole. Works on the folder, beside the
 * daemons that use it. One thread. */
#define LOG_MODULE "cli"

#include "cli_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blocks.h"
#include "index.h"
#include "opts.h"

#define LISTED 20 /* objects that are shown; --json shows all */

struct cache {
	struct opts opts;
	struct index *index;
	struct blocks *blocks;
	struct index_object *objects; /* least recently used first */
	size_t n;
	uint64_t bytes, count, max;
};

static void cache_fini(struct cache *c)
{
	free(c->objects);
	blocks_free(c->blocks);
	index_close(c->index);
	opts_fini(&c->opts);
}

static int cache_open(struct cache *c)
{
	AUTO_FREE char *why = NULL;
	struct blocks_opts opts = {0};
	int r = opts_init(&c->opts, &why);

	if (r < 0)
		return cli_complain("%s", why ? why : "out of memory");
	opts.dir = c->opts.cache_dir;
	opts.max_bytes = c->opts.cache_size;
	r = util_mkdirs(opts.dir);
	if (r == 0)
		r = index_open(opts.dir, &c->index);
	if (r == 0)
		r = blocks_new(&opts, c->index, &c->blocks);
	if (r == 0)
		r = index_objects(c->index, &c->objects, &c->n);
	if (r == 0)
		r = index_usage(c->index, &c->bytes, &c->count);
	return r < 0 ? cli_complain("%s: %s", c->opts.cache_dir, strerror(-r)) : CLI_OK;
}

static int list_json(const struct cache *c)
{
	AUTO_BUF out = {.max = SIZE_MAX - 1};
	struct hub_json_writer w;
	char id[HASH_MAX_HEX];

	hub_json_write_init(&w, &out);
	hub_json_write_object(&w, NULL);
	hub_json_write_string(&w, "folder", c->opts.cache_dir);
	hub_json_write_number(&w, "bytes", (int64_t)c->bytes);
	hub_json_write_number(&w, "max_bytes", (int64_t)c->opts.cache_size);
	hub_json_write_array(&w, "objects");
	for (size_t i = c->n; i > 0; i--) {
		const struct index_object *o = &c->objects[i - 1];

		hash_key_hex(&o->key, id);
		hub_json_write_object(&w, NULL);
		hub_json_write_string(&w, "id", id);
		hub_json_write_number(&w, "size", (int64_t)o->key.size);
		hub_json_write_number(&w, "bytes", (int64_t)o->bytes);
		hub_json_write_number(&w, "used", o->used_s);
		hub_json_write_end(&w);
	}
	hub_json_write_end(&w);
	hub_json_write_end(&w);
	return cli_print_json(&w);
}

static int list(const struct cache *c)
{
	char used[24], max[24], files[40], size[24], id[HASH_MAX_HEX];

	printf("%s: %s of %s, %s\n", c->opts.cache_dir, cli_size_text(c->bytes, used),
	       cli_size_text(c->opts.cache_size, max), cli_count_text(c->count, "file", files));
	for (size_t i = c->n; i > 0 && c->n - i < LISTED; i--) {
		const struct index_object *o = &c->objects[i - 1];

		hash_key_hex(&o->key, id);
		printf("  %10s of %10s  %s\n", cli_size_text(o->bytes, used), cli_size_text(o->key.size, size), id);
	}
	if (c->n > LISTED)
		printf("  and %zu that were used longer ago (--json lists them)\n", c->n - LISTED);
	return CLI_OK;
}

/* Reads every block that is there: one whose checksum is wrong goes. */
static int verify(struct cache *c)
{
	AUTO_FREE char *buf = malloc(BLOCKS_SIZE);
	uint64_t good = 0, wrong = 0;

	if (!buf)
		return cli_complain("out of memory");
	for (size_t i = 0; i < c->n; i++) {
		CLEANUP(blocks_putp) struct blob *blob = NULL;

		if (blocks_get(c->blocks, &c->objects[i].key, &blob) < 0)
			continue;
		for (uint64_t off = 0; off < c->objects[i].key.size; off += BLOCKS_SIZE) {
			if (!blocks_has(blob, off, 1))
				continue;
			if (blocks_read(blob, off, buf, BLOCKS_SIZE) < 0)
				wrong++;
			else
				good++;
		}
	}
	printf("%" PRIu64 " blocks are whole, %" PRIu64 " were not and are dropped\n", good, wrong);
	return CLI_OK;
}

static int shrink(struct cache *c)
{
	uint64_t before = c->bytes, after;
	char freed[24], left[24];
	int r;

	r = before > c->max ? blocks_give_way(c->blocks, before - c->max) : 0;
	if (r == 0 || r == -ENOSPC) /* what is in use stays */
		r = index_usage(c->index, &after, &c->count);
	if (r < 0)
		return cli_complain("%s", strerror(-r));
	printf("%s freed, %s left\n", cli_size_text(before > after ? before - after : 0, freed),
	       cli_size_text(after, left));
	return CLI_OK;
}

int cli_cache(int argc, char **argv)
{
	CLEANUP(cache_fini) struct cache c = {0};
	const char *what = NULL, *size = NULL;
	bool json = false;
	uint64_t max = 0;
	int r;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json = true;
		else if (argv[i][0] == '-' || size)
			return cli_usage(argv[0]);
		else if (what)
			size = argv[i];
		else
			what = argv[i];
	}
	what = what ? what : "ls";
	if ((size && strcmp(what, "prune") != 0) || (size && util_parse_size(size, &max) < 0))
		return cli_usage(argv[0]);
	r = cache_open(&c);
	if (r != CLI_OK)
		return r;
	c.max = size ? max : strcmp(what, "clear") == 0 ? 0 : c.opts.cache_size;
	if (strcmp(what, "ls") == 0)
		return json ? list_json(&c) : list(&c);
	if (strcmp(what, "verify") == 0)
		return verify(&c);
	if (strcmp(what, "prune") == 0 || strcmp(what, "clear") == 0)
		return shrink(&c);
	return cli_usage(argv[0]);
}

/* hash: digests against published values, keys, CRC32C by both ways. The module is included, not linked, so
 * that the way by tables is tested on machines that would never take it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../cache/hash.c"

static void expect(enum hash_alg alg, const char *text, const char *hex)
{
	char got[HASH_MAX_HEX];
	struct blob_key key;

	assert_int_equal(hash_buf(alg, text, strlen(text), &key), 0);
	hash_key_hex(&key, got);
	assert_string_equal(got, hex);
	assert_int_equal(key.size, strlen(text));
	assert_int_equal(key.alg, alg);
}

static void test_digests(void **state)
{
	/* git hash-object of these, and sha256sum */
	expect(HASH_GIT_SHA1, "", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
	expect(HASH_GIT_SHA1, "hello\n", "ce013625030ba8dba906f756967f9e9ca394464a");
	expect(HASH_SHA256, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	expect(HASH_SHA256, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void test_pieces(void **state)
{
	CLEANUP(hash_freep) struct hash *h = hash_new(HASH_GIT_SHA1, 6);
	struct blob_key whole, pieces;

	assert_int_equal(hash_buf(HASH_GIT_SHA1, "hello\n", 6, &whole), 0);
	assert_int_equal(hash_add(h, "he", 2), 0);
	assert_int_equal(hash_add(h, NULL, 0), 0);
	assert_int_equal(hash_add(h, "llo\n", 4), 0);
	assert_int_equal(hash_end(h, &pieces), 0);
	assert_true(hash_key_equal(&whole, &pieces));
	hash_free(NULL);
}

static void test_wrong_size(void **state)
{
	CLEANUP(hash_freep) struct hash *git = hash_new(HASH_GIT_SHA1, 7);
	CLEANUP(hash_freep) struct hash *lfs = hash_new(HASH_SHA256, 7);
	struct blob_key key = {.size = 99};

	assert_int_equal(hash_add(git, "hello\n", 6), 0);
	assert_int_equal(hash_end(git, &key), -EINVAL);
	assert_int_equal(key.size, 99);
	assert_int_equal(hash_add(lfs, "hello\n", 6), 0);
	assert_int_equal(hash_end(lfs, &key), 0);
	assert_int_equal(key.size, 6);
}

static void test_lfs_pointer(void **state)
{
	struct blob_key lfs, pointer;
	char hex[HASH_MAX_HEX];

	/* what git hash-object says of that text, by hand */
	assert_int_equal(hash_buf(HASH_SHA256, "abc", 3, &lfs), 0);
	assert_int_equal(hash_lfs_pointer(&lfs, &pointer), 0);
	hash_key_hex(&pointer, hex);
	assert_string_equal(hex, "80d7d501c2b256023dc42e46d958b9ac2ec283ee");
	assert_int_equal(pointer.size, 126);
}

static void test_keys(void **state)
{
	static const char evil[] = "../../../../../../etc/passwd/hello/hello";
	static const char sha1[] = "ce013625030ba8dba906f756967f9e9ca394464a";
	struct blob_key a, b, untouched = {.size = 5};
	char hex[HASH_MAX_HEX];

	assert_int_equal(hash_len(HASH_GIT_SHA1), 20);
	assert_int_equal(hash_len(HASH_SHA256), 32);
	assert_int_equal(hash_key_from_hex(HASH_GIT_SHA1, sha1, 6, &a), 0);
	hash_key_hex(&a, hex);
	assert_string_equal(hex, sha1);
	b = a;
	assert_true(hash_key_equal(&a, &b));
	assert_int_equal(hash_key_u64(&a), hash_key_u64(&b));
	b.size++;
	assert_false(hash_key_equal(&a, &b));
	b = a;
	b.id[19] ^= 1;
	assert_false(hash_key_equal(&a, &b));
	b = a;
	b.alg = HASH_SHA256;
	assert_false(hash_key_equal(&a, &b));

	assert_int_equal(hash_key_from_hex(HASH_SHA256, sha1, 6, &untouched), -EINVAL);
	assert_int_equal(hash_key_from_hex(HASH_GIT_SHA1, "", 6, &untouched), -EINVAL);
	assert_int_equal(hash_key_from_hex(HASH_GIT_SHA1, evil, 6, &untouched), -EINVAL);
	assert_int_equal(untouched.size, 5);
}

static void test_crc32c(void **state)
{
	static const struct {
		uint8_t first, step;
		uint32_t crc;
	} iscsi[] = { /* RFC 3720, B.4: 32 bytes each */
		{0x00, 0, 0x8a9136aa},
		{0xff, 0, 0x62a8ab43},
		{0x00, 1, 0x46dd794e},
		{0x1f, 0xff, 0x113fdb5c},
	};
	uint8_t data[4099];

	for (size_t i = 0; i < ARRAY_LEN(iscsi); i++) {
		for (int k = 0; k < 32; k++)
			data[k] = (uint8_t)(iscsi[i].first + k * iscsi[i].step);
		assert_int_equal(hash_crc32c(0, data, 32), iscsi[i].crc);
		assert_int_equal(~crc_by_table(~0u, data, 32), iscsi[i].crc);
	}
	assert_int_equal(hash_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(hash_crc32c(0, NULL, 0), 0);

	/* Every length and alignment says the same by both ways, whole and in pieces. */
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 167 + (i >> 3));
	for (size_t from = 0; from < 9; from++) {
		for (size_t len = 0; len < 70; len++) {
			uint32_t crc = hash_crc32c(0, data + from, len);
			uint32_t first = hash_crc32c(0, data + from, len / 3);

			assert_int_equal(crc, ~crc_by_table(~0u, data + from, len));
			assert_int_equal(crc, hash_crc32c(first, data + from + len / 3, len - len / 3));
		}
	}
	assert_int_equal(hash_crc32c(0, data, sizeof(data)), ~crc_by_table(~0u, data, sizeof(data)));
}

static void test_text64(void **state)
{
	uint64_t chained = hash_text64(hash_text64(0, "main", 4), "a", 1);

	/* Published values of 64-bit FNV-1a. */
	assert_true(hash_text64(0, "", 0) == 0xcbf29ce484222325);
	assert_true(hash_text64(0, "a", 1) == 0xaf63dc4c8601ec8c);
	assert_true(hash_text64(0, "foobar", 6) == 0x85944171f73967e8);
	assert_true(chained != hash_text64(0, "maina", 5));
	assert_true(chained != hash_text64(hash_text64(0, "dev", 3), "a", 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_digests), cmocka_unit_test(test_pieces),
		cmocka_unit_test(test_wrong_size), cmocka_unit_test(test_lfs_pointer),
		cmocka_unit_test(test_keys), cmocka_unit_test(test_crc32c), cmocka_unit_test(test_text64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

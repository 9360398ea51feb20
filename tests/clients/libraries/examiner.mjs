// Calls functions of @huggingface/hub for test_node.py: one JSON object a line in, one a line out.
//
//     {"function": "listFiles", "params": {...}}  ->  {"result": [...]} or {"error": {"status", "message"}}
//
// In both directions {"base64": "..."} stands for a Blob, {"folder": "/path"} for its address. What comes as an
// iterator is answered as a list. Runs in the folder that holds node_modules.
import { Console } from "node:console";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

globalThis.console = new Console(process.stderr); // what the library says is no answer
const say = (value) => process.stdout.write(JSON.stringify(value) + "\n");
const require = createRequire(process.cwd() + "/");
const hub = require("@huggingface/hub");

function decode(name, value) {
	if (value?.base64 !== undefined) return new Blob([Buffer.from(value.base64, "base64")]);
	if (value?.folder !== undefined) return pathToFileURL(value.folder);
	return value;
}

async function encode(value) {
	if (value instanceof Blob) return { base64: Buffer.from(await value.arrayBuffer()).toString("base64") };
	if (value?.[Symbol.asyncIterator]) return Array.fromAsync(value);
	return value;
}

async function answer({ function: name, params }) {
	try {
		return { result: (await encode(await hub[name](params))) ?? null };
	} catch (error) {
		return { error: { status: error.statusCode ?? null, message: String(error.message) } };
	}
}

const description = JSON.parse(readFileSync("node_modules/@huggingface/hub/package.json"));
say({ [description.name]: description.version, node: process.versions.node });
for await (const line of createInterface({ input: process.stdin })) {
	say(await answer(JSON.parse(line, decode)));
}

// The published TrailBase client against a server that runs the conformance fixture.
//
//   conformance/serve.sh --port 4005 &
//   cd conformance/js && npm ci && BEDPLATE_URL=http://127.0.0.1:4005 node --test run.mjs
//
// Every test makes its own rows, marked with the time of the run, so it may be repeated on the same database.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FetchError, filePath, filesPath, initClient, urlSafeBase64Encode } from "trailbase";

const base = process.env.BEDPLATE_URL;
assert.ok(base, "set BEDPLATE_URL to the address of the server, such as http://127.0.0.1:4005");

const client = initClient(base);
const records = client.records("open_strict_table");
const path = "/api/records/v1";

// The text of a test's rows; the characters at the end have a meaning in query strings.
const run = Date.now().toString(36);
const mark = (title) => `${title} ${run} =?&`;

const refused = (status, message) => (error) => {
  assert.ok(error instanceof FetchError, `want a FetchError, got ${error}`);
  assert.equal(error.status, status);
  if (message !== undefined) assert.equal(error.message, message);
  return true;
};

const raw = (suffix, init) => fetch(new URL(suffix, base), init);

const sendJSON = (method, suffix, body, headers) =>
  raw(suffix, { method, headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

const signedIn = async (email = "admin@localhost") => {
  const user = initClient(base);
  await user.login(email, "secret");
  return user;
};

test("create, read, update, delete", async () => {
  const text = mark("crud");
  const id = await records.create({ text_not_null: text, int_null: null, real_not_null: 2.5 });
  assert.equal(typeof id, "string");
  assert.match(id, /^[A-Za-z0-9_-]{22}==$/, "a UUID is 24 characters of URL-safe base64");

  assert.deepEqual(await records.read(id), {
    id,
    text_null: null,
    text_default: "",
    text_not_null: text,
    int_null: null,
    int_default: 5,
    int_not_null: 7,
    real_null: null,
    real_default: 5.1,
    real_not_null: 2.5,
    blob_null: null,
    blob_default: "qrvM3Q==",
    blob_not_null: "qrvM3Q==",
  });

  await records.update(id, { text_null: "set", int_not_null: -1, blob_null: "AQID" });
  const changed = await records.read(id);
  assert.equal(changed.text_null, "set");
  assert.equal(changed.int_not_null, -1);
  assert.equal(changed.blob_null, "AQID");
  assert.equal(changed.text_not_null, text, "what an update does not name stays");

  await records.update(id, { text_null: null });
  assert.equal((await records.read(id)).text_null, null);

  await records.delete(id);
  await assert.rejects(records.read(id), refused(404));
  await assert.rejects(records.delete(id), refused(404));
});

test("answers of create, update and delete", async () => {
  const json = { "Content-Type": "application/json" };
  const url = `${path}/open_strict_table`;
  const created = await raw(url, { method: "POST", headers: json, body: JSON.stringify({ text_not_null: mark("answers") }) });
  assert.equal(created.status, 200);
  assert.equal(created.headers.get("content-type"), "application/json");
  const { ids, ...rest } = await created.json();
  assert.equal(ids.length, 1);
  assert.deepEqual(rest, {});

  const updated = await raw(`${url}/${ids[0]}`, { method: "PATCH", headers: json, body: '{"int_null":1}' });
  assert.deepEqual([updated.status, await updated.text()], [200, ""]);

  const deleted = await raw(`${url}/${ids[0]}`, { method: "DELETE" });
  assert.deepEqual([deleted.status, await deleted.text()], [200, "deleted"]);
});

test("bulk create is all or nothing", async () => {
  const text = mark("bulk");
  const ids = await records.createBulk([1, 2, 3].map((n) => ({ text_not_null: text, int_not_null: n })));
  assert.equal(new Set(ids).size, 3);
  for (const [i, id] of ids.entries()) {
    assert.equal((await records.read(id)).int_not_null, i + 1, "ids come in the order of the request");
  }

  const bad = mark("bad bulk");
  await assert.rejects(
    records.createBulk([{ text_not_null: bad }, { text_not_null: bad, int_not_null: null }]),
    refused(400),
  );
  const { records: left } = await records.list({ filters: [{ column: "text_not_null", value: bad }] });
  assert.deepEqual(left, []);
});

test("filters", async () => {
  const text = mark("filters");
  await records.createBulk(
    [1, 2, 3, 4, 5].map((n) => ({ text_not_null: text, text_default: `no. ${n} of ${text}`, int_not_null: n, text_null: n % 2 ? "odd" : null })),
  );
  const mine = { column: "text_not_null", value: text };
  const numbers = async (...filters) => {
    const page = await records.list({ filters: [mine, ...filters], order: ["+int_not_null"] });
    return page.records.map((r) => r.int_not_null);
  };
  const int = (op, value) => ({ column: "int_not_null", op, value });

  assert.deepEqual(await numbers(), [1, 2, 3, 4, 5]);
  assert.deepEqual(await numbers({ column: "text_default", value: `no. 3 of ${text}` }), [3], "two columns");
  assert.deepEqual(await numbers(int("equal", "2")), [2]);
  assert.deepEqual(await numbers(int("notEqual", "2")), [1, 3, 4, 5]);
  assert.deepEqual(await numbers(int("greaterThanEqual", "4")), [4, 5]);
  assert.deepEqual(await numbers(int("greaterThan", "4")), [5]);
  assert.deepEqual(await numbers(int("lessThanEqual", "2")), [1, 2]);
  assert.deepEqual(await numbers(int("lessThan", "2")), [1]);
  assert.deepEqual(await numbers(int("greaterThanEqual", "2"), int("lessThan", "4")), [2, 3], "two on one column");
  assert.deepEqual(await numbers({ column: "text_default", op: "like", value: "no. _ of filters %" }), [1, 2, 3, 4, 5]);
  assert.deepEqual(await numbers({ column: "text_default", op: "like", value: "NO.%" }), [], "LIKE minds the case");
  assert.deepEqual(await numbers({ column: "text_default", op: "regexp", value: "^no\\. [24] " }), [2, 4]);
  assert.deepEqual(await numbers({ or: [int("equal", "1"), int("greaterThan", "4")] }), [1, 5]);
  assert.deepEqual(await numbers({ and: [int("greaterThan", "1"), { or: [int("equal", "1"), int("equal", "3")] }] }), [3]);

  const is = async (value) => {
    const query = new URLSearchParams({ "filter[text_not_null]": text, "filter[text_null][$is]": value, count: "true" });
    return (await (await raw(`${path}/open_strict_table?${query}`)).json()).total_count;
  };
  assert.equal(await is("NULL"), 2);
  assert.equal(await is("!NULL"), 3);

  for (const filter of [{ column: "no_such_column", value: "1" }, { column: "int_not_null", value: "one" }]) {
    await assert.rejects(records.list({ filters: [filter] }), refused(400, "Invalid filter params"));
  }
});

test("order, count and offset", async () => {
  const text = mark("order");
  await records.createBulk([2, 3, 1].map((n) => ({ text_not_null: `${text}${n}` })));
  const filters = [{ column: "text_not_null", op: "like", value: `${text}%` }];
  const texts = (page) => page.records.map((r) => r.text_not_null.at(-1)).join("");

  const up = await records.list({ filters, order: ["+text_not_null"], count: true });
  assert.equal(up.total_count, 3);
  assert.equal(texts(up), "123");
  const down = await records.list({ filters, order: ["-text_not_null"] });
  assert.equal(texts(down), "321");
  assert.ok(!("total_count" in down), "a total only when asked for");
  assert.equal(texts(await records.list({ filters })), "132", "by default the newest key comes first");
  assert.equal(texts(await records.list({ filters, order: ["text_not_null"], pagination: { limit: 1, offset: 1 } })), "2");
  const counted = await records.list({ filters, order: ["text_not_null"], count: true, pagination: { limit: 2 } });
  assert.equal(texts(counted), "12");
  assert.equal(counted.total_count, 3, "the total does not depend on the page");

  await assert.rejects(records.list({ order: ["no_such_column"] }), refused(400));
  await assert.rejects(records.list({ pagination: { limit: 1025 } }), refused(400, "limit exceeds max limit of 1024"));
});

test("cursors lead through all rows once", async () => {
  const text = mark("cursor");
  const ids = await records.createBulk(Array.from({ length: 23 }, (_, n) => ({ text_not_null: text, int_not_null: n })));
  for (const order of [undefined, ["+id"], ["-id"]]) {
    const seen = [];
    let cursor;
    for (let page = 0; ; page++) {
      assert.ok(page < 10, "the pages end");
      const list = await records.list({
        filters: [{ column: "text_not_null", value: text }],
        order,
        pagination: { limit: 5, cursor },
      });
      if (list.records.length === 0) {
        assert.equal(list.cursor, undefined, "an empty page has no cursor");
        break;
      }
      assert.equal(typeof list.cursor, "string");
      assert.notEqual(list.cursor, "");
      assert.ok(list.records.length <= 5);
      seen.push(...list.records.map((r) => r.id));
      cursor = list.cursor;
    }
    const want = order?.[0] === "+id" ? ids : ids.toReversed();
    assert.deepEqual(seen, want, `order ${order}`);
  }
  await assert.rejects(records.list({ pagination: { cursor: "bm90IGEgY3Vyc29y" } }), refused(400));
});

test("expand", async () => {
  const comments = client.records("comment");

  const bare = await comments.read(1);
  assert.equal(bare.body, "first comment");
  for (const column of ["author", "post"]) {
    assert.deepEqual(Object.keys(bare[column]), ["id"], `${column} without data`);
    assert.match(bare[column].id, /==$/);
  }

  const one = await comments.read(1, { expand: ["post"] });
  assert.equal(one.post.data.title, "first post");
  assert.equal(one.post.data.id, one.post.id);
  assert.ok(!("data" in one.author));

  const page = (pagination) => comments.list({ expand: ["author", "post"], order: ["-id"], pagination });
  const [second] = (await page({ limit: 1 })).records;
  assert.equal(second.id, 2);
  assert.equal(second.body, "second comment");
  assert.equal(second.author.data.name, "SecondUser");
  assert.equal(second.post.data.body, "body");
  assert.equal(typeof second.author.data.user, "string", "one hop only");

  const both = await page({ limit: 2 });
  assert.equal(both.records.length, 2);
  assert.deepEqual((await page({ limit: 1, offset: 1 })).records[0], both.records[1]);

  await assert.rejects(comments.read(1, { expand: ["body"] }), refused(400, "Invalid expansion"));
  await assert.rejects(comments.list({ expand: ["nothing"] }), refused(400, "Invalid expansion"));
});

test("errors", async () => {
  for (const [suffix, status, body] of [
    ["/nonexistent/api/path", 404, ""],
    [`${path}/no_such_api/1`, 405, ""],
    [`${path}/no_such_api`, 405, ""],
    [`${path}/open_strict_table/InvalidId0123`, 400, "Invalid id"],
    [`${path}/comment/one`, 400, "Invalid id"],
    [`${path}/open_strict_table/AZH8mYTFd5OexZn4K10jCA==`, 404, ""],
    [`${path}/comment/999`, 404, ""],
    [`${path}/movies/999`, 404, ""],
    [`${path}/simple_strict_table`, 403, ""],
    [`${path}/simple_strict_table/AZH8mYTFd5OexZn4K10jCA==`, 403, ""],
  ]) {
    const response = await raw(suffix, { headers: { "Content-Type": "application/json" } });
    assert.deepEqual([suffix, response.status, await response.text()], [suffix, status, body]);
  }
  // The client falls back to the reason phrase when the body is empty.
  await assert.rejects(client.records("no_such_api").read("1"), refused(405, "Method Not Allowed"));
  await assert.rejects(records.read("AZH8mYTFd5OexZn4K10jCA=="), refused(404, "Not Found"));
  await assert.rejects(records.read("InvalidId0123"), refused(400, "Invalid id"));
});

test("only what the world may do", async () => {
  const comments = client.records("comment");
  await assert.rejects(comments.create({ body: "mine" }), refused(403));
  await assert.rejects(comments.update(1, { body: "mine" }), refused(403));
  await assert.rejects(comments.delete(1), refused(403));
  assert.equal((await comments.read(1)).body, "first comment");
  await assert.rejects(client.records("simple_complete_view").create({ text_not_null: "x" }), refused(405));
});

test("wrong values change nothing", async () => {
  const text = mark("wrong");
  const before = await records.create({ text_not_null: text });
  for (const wrong of [
    { int_not_null: 1.5 }, { int_not_null: "1" }, { int_not_null: null }, { text_not_null: 1 }, { real_not_null: "1.5" },
    { blob_not_null: "no base64" }, { id: "AZH8mYTFd5OexZn4K10jCA==", text_not_null: text },
  ]) {
    await assert.rejects(records.update(before, wrong), refused(400), JSON.stringify(wrong));
    if (!("id" in wrong)) await assert.rejects(records.create({ text_default: text, ...wrong }), refused(400), JSON.stringify(wrong));
  }
  const rows = await records.list({ filters: [{ or: [{ column: "text_not_null", value: text }, { column: "text_default", value: text }] }] });
  assert.deepEqual(rows.records.map((r) => [r.id, r.int_not_null]), [[before, 7]]);
});

test("int64 is exact", async () => {
  const [least, most] = ["-9223372036854775808", "9223372036854775807"];
  const url = `${path}/open_strict_table`;
  const response = await raw(url, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: `{"int_not_null":${most},"int_default":${least},"text_not_null":${JSON.stringify(mark("int64"))}}`,
  });
  assert.equal(response.status, 200);
  const [id] = (await response.json()).ids;
  const text = await (await raw(`${url}/${id}`)).text();
  assert.match(text, new RegExp(`"int_not_null":${most}[,}]`));
  assert.match(text, new RegExp(`"int_default":${least}[,}]`));
  assert.match(text, /"real_default":5\.1[,}]/);

  const viaClient = await records.create({ int_not_null: BigInt(most), text_not_null: mark("int64") });
  assert.equal((await records.read(viaClient)).int_not_null, BigInt(most));
  const query = new URLSearchParams({ "filter[int_not_null]": most, "filter[text_not_null]": mark("int64"), count: "true" });
  assert.equal((await (await raw(`${url}?${query}`)).json()).total_count, 2);
});

test("GeoJSON", async () => {
  const places = client.records("geometry");
  const all = await places.listGeoOp("geom").query();
  assert.equal(all.type, "FeatureCollection");
  assert.equal(all.features.length, 4);
  for (const feature of all.features) assert.equal(feature.type, "Feature");
  const named = Object.fromEntries(all.features.map((f) => [f.properties.description, f]));
  assert.deepEqual(named.Colloseo.geometry, { type: "Point", coordinates: [12.4924, 41.8902] });
  assert.deepEqual(named["A Line"].geometry, { type: "LineString", coordinates: [[10, 20], [20, 30]] });
  assert.equal(named["br-quadrant"].geometry.type, "Polygon");
  assert.equal(named.null.geometry, null);
  assert.equal(named.Colloseo.id, named.Colloseo.properties.id);

  const within = (value) => places.listGeoOp("geom", { filters: [{ column: "geom", op: "@within", value }] }).query();
  const rome = await within("POLYGON ((12 40, 12 42, 13 42, 13 40, 12 40))");
  assert.deepEqual(rome.features.map((f) => f.properties.description), ["Colloseo"]);
  await assert.rejects(within("POLYGON ((12 40"), refused(400));
  await assert.rejects(places.listGeoOp("description").query(), refused(400, "Invalid geometry column"));
});

// The same table in the main database and in the one named other.
const fileAPIs = ["file_upload_table", "other_file_upload_table"];

const bytes = (...values) => new Uint8Array(values);

async function download(suffix) {
  const response = await raw(suffix);
  assert.deepEqual([suffix, response.status], [suffix, 200]);
  return new Uint8Array(await response.arrayBuffer());
}

test("files as base64", async () => {
  const contents = [bytes(0, 1, 2, 3, 4, 5), bytes(42, 5, 42, 5), bytes(255, 128, 64, 32)];
  const type = "application/octet-stream";
  const upload = (n, data) => ({ name: `file ${n}`, filename: `test${n}.bin`, content_type: type, data });
  for (const api of fileAPIs) {
    const files = client.records(api);
    const id = await files.create({
      name: mark("base64"),
      single_file: upload(1, urlSafeBase64Encode(contents[0])),
      multiple_files: [
        upload(2, urlSafeBase64Encode(contents[1])),
        upload(3, Buffer.from(contents[2]).toString("base64")), // "/4BAIA==", which is not URL-safe
      ],
    });

    const record = await files.read(id);
    assert.equal(record.multiple_files.length, 2);
    for (const [i, file] of [record.single_file, ...record.multiple_files].entries()) {
      assert.match(file.filename, new RegExp(`^test${i + 1}_[a-z0-9]{10}\\.bin$`));
      assert.deepEqual([file.original_filename, file.content_type], [`test${i + 1}.bin`, type]);
      assert.ok(!("id" in file), "the name in the store is nobody's business");
    }

    assert.deepEqual(await download(filePath(api, id, "single_file")), contents[0]);
    assert.deepEqual(await download(filesPath(api, id, "single_file", record.single_file.filename)), contents[0]);
    for (const [i, { filename }] of record.multiple_files.entries()) {
      assert.deepEqual(await download(filesPath(api, id, "multiple_files", filename)), contents[i + 1]);
    }

    const paths = [filePath(api, id, "single_file"), filesPath(api, id, "multiple_files", record.multiple_files[0].filename)];
    for (const [suffix, status, body] of [
      [filesPath(api, id, "multiple_files", "non-existent-filename"), 404, ""],
      [filesPath(api, id, "single_file", record.multiple_files[0].filename), 404, ""],
      [filePath(api, id, "multiple_files"), 400, "Not a file"],
      [filePath(api, id, "name"), 400, "Not a file"],
      [filesPath(api, id, "name", "x"), 400, "Not a files list"],
      [filePath(api, id, "no_such_column"), 400, "Invalid field/column name"],
      [filePath(api, "AZH8mYTFd5OexZn4K10jCA==", "single_file"), 404, ""],
    ]) {
      const response = await raw(suffix);
      assert.deepEqual([suffix, response.status, await response.text()], [suffix, status, body]);
    }

    await files.delete(id);
    for (const suffix of paths) assert.equal((await raw(suffix)).status, 404, `${suffix} of a deleted record`);
  }
});

test("files in a form", async () => {
  const one = bytes(...Array.from({ length: 70_000 }, (_, n) => (n * n) % 251));
  const texts = ["first", "second, \u{1f4c4}"];
  for (const api of fileAPIs) {
    const form = new FormData();
    form.append("name", mark("form"));
    form.append("single_file", new Blob([one], { type: "application/x-one" }), "one.dat");
    for (const [i, text] of texts.entries()) {
      form.append("multiple_files", new Blob([text], { type: "text/plain" }), `text ${i}.txt`);
    }
    const response = await raw(`${path}/${api}`, { method: "POST", body: form });
    assert.equal(response.status, 200);
    const [id] = (await response.json()).ids;

    const record = await client.records(api).read(id);
    assert.equal(record.name, mark("form"));
    assert.equal(record.single_file.original_filename, "one.dat");
    assert.equal(record.single_file.content_type, "application/x-one");
    assert.deepEqual(record.multiple_files.map((f) => [f.original_filename, f.mime_type]), [["text 0.txt", "text/plain"], ["text 1.txt", "text/plain"]]);
    assert.deepEqual(await download(filePath(api, id, "single_file")), one);
    for (const [i, { filename }] of record.multiple_files.entries()) {
      assert.equal(new TextDecoder().decode(await download(filesPath(api, id, "multiple_files", filename))), texts[i]);
    }

    const part = await raw(filePath(api, id, "single_file"), { headers: { Range: "bytes=65536-65545" } });
    assert.equal(part.status, 206);
    assert.deepEqual(new Uint8Array(await part.arrayBuffer()), one.slice(65536, 65546));
    assert.equal(part.headers.get("x-content-type-options"), "nosniff");
    assert.match(part.headers.get("content-disposition"), /^attachment; filename="one\.dat"/);
    await client.records(api).delete(id);
  }

  const twice = new FormData();
  for (const name of ["a", "b"]) twice.append("single_file", new Blob([name]), name);
  assert.equal((await raw(`${path}/file_upload_table`, { method: "POST", body: twice })).status, 400, "two files for one");
  const misplaced = new FormData();
  misplaced.append("name", new Blob(["a"]), "a");
  assert.equal((await raw(`${path}/file_upload_table`, { method: "POST", body: misplaced })).status, 400, "a file for a text");
});

test("files of an update", async () => {
  const api = "file_upload_table";
  const files = (await signedIn()).records(api);
  const upload = (text) => ({ filename: `${text}.txt`, data: Buffer.from(text).toString("base64") });
  const id = await files.create({ single_file: upload("old"), multiple_files: [upload("kept"), upload("dropped")] });
  const before = await files.read(id);
  const [kept, dropped] = before.multiple_files;

  await files.update(id, { multiple_files: [upload("added"), kept] });
  const after = await files.read(id);
  assert.deepEqual(after.single_file, before.single_file, "what an update does not name stays");
  assert.deepEqual(after.multiple_files.map((f) => f.original_filename), ["added.txt", "kept.txt"]);
  assert.equal(after.multiple_files[1].filename, kept.filename);
  const status = async (column, file) => (await raw(filesPath(api, id, column, file.filename))).status;
  assert.equal(await status("multiple_files", kept), 200);
  assert.equal(await status("multiple_files", dropped), 404);

  await files.update(id, { single_file: upload("new") });
  assert.deepEqual(await download(filePath(api, id, "single_file")), new TextEncoder().encode("new"));
  assert.equal(await status("single_file", before.single_file), 404);

  await files.update(id, { single_file: null, multiple_files: null });
  const { single_file, multiple_files } = await files.read(id);
  assert.deepEqual([single_file, multiple_files], [null, null]);
  assert.equal((await raw(filePath(api, id, "single_file"))).status, 404);

  for (const wrong of [kept, { ...upload("x"), id: "5a3c1b1e-6b1c-4c8e-9d0f-000000000000" }, { filename: "x" }, { data: "no base64" }, "x"]) {
    await assert.rejects(files.update(id, { single_file: wrong }), refused(400), JSON.stringify(wrong));
  }
  await files.delete(id);
});

test("transactions", async () => {
  const text = mark("transaction");
  const count = async (value) =>
    (await records.list({ filters: [{ column: "text_not_null", value }], count: true, pagination: { limit: 0 } })).total_count;

  for (const transaction of [true, false]) {
    const ids = await client.execute([1, 2].map((n) => records.createOp({ text_not_null: text, int_not_null: n })), transaction);
    assert.equal(new Set(ids).size, 2);
    for (const [i, id] of ids.entries()) assert.equal((await records.read(id)).int_not_null, i + 1);

    const last = await client.execute(
      [records.updateOp(ids[0], { int_not_null: 10 }), records.deleteOp(ids[1]), records.createOp({ text_not_null: text })],
      transaction,
    );
    assert.deepEqual(last.slice(0, 2), ids, "an update and a delete repeat the id");
    assert.equal((await records.read(ids[0])).int_not_null, 10);
    await assert.rejects(records.read(ids[1]), refused(404));
    await client.execute([records.deleteOp(ids[0]), records.deleteOp(last[2])], transaction);
    assert.equal(await count(text), 0);
  }
  assert.deepEqual(await client.execute([]), []);

  const half = mark("half");
  const failing = [records.createOp({ text_not_null: half }), records.createOp({ text_not_null: half, int_not_null: null })];
  await assert.rejects(client.execute(failing, true), refused(400, "db constraint: not null"));
  assert.equal(await count(half), 0, "a transaction is undone");
  await assert.rejects(client.execute(failing, false), refused(400, "db constraint: not null"));
  assert.equal(await count(half), 1, "without one the first stays");

  const create = records.createOp({ text_not_null: half });
  for (const [operation, status] of [
    [client.records("simple_strict_table").createOp({}), 403],
    [client.records("comment").updateOp(1, { body: "mine" }), 403],
    [client.records("no_such_api").createOp({}), 405],
    [client.records("simple_complete_view").createOp({}), 405],
    [records.deleteOp("AZH8mYTFd5OexZn4K10jCA=="), 404],
    [records.deleteOp("one"), 400],
  ]) {
    await assert.rejects(client.execute([create, operation]), refused(status), JSON.stringify(operation));
  }
  await assert.rejects(client.execute(Array(129).fill(create)), refused(400, "Batch size exceeds limit: 128"));
  assert.equal(await count(half), 1, "what is refused changes nothing");
});

test("operations refer to earlier ones", async () => {
  const text = mark("reference");
  const execute = (...operations) => sendJSON("POST", "/api/transaction/v1/execute", { operations, transaction: true });
  const api_name = "open_strict_table";
  const create = { Create: { api_name, value: { text_not_null: text } } };
  const created = await execute(
    create,
    { Create: { api_name, value: { text_not_null: text, blob_null: { $id: 0 } } } },
    { Update: { api_name, record_id: { $id: 0 }, value: { int_null: 1 } } },
  );
  assert.equal(created.status, 200);
  const { ids, results } = await created.json();
  assert.deepEqual(results, ids.map((Id) => ({ Id })), "for clients of either kind");
  assert.equal(ids[2], ids[0]);
  assert.equal((await records.read(ids[0])).int_null, 1);
  assert.equal((await records.read(ids[1])).blob_null, ids[0]);

  for (const reference of [{ $id: 1 }, { $id: -1 }, { $id: "0" }, { id: 0 }]) {
    const wrong = await execute(create, { Update: { api_name, record_id: reference, value: { int_null: 2 } } });
    assert.deepEqual([reference, wrong.status], [reference, 400]);
  }
});

test("custom schema", async () => {
  const admin = (await signedIn()).records("simple_schema_table");
  const data = { name: mark("schema"), obj: { x: [1, null] } };
  const id = await admin.create({ data });
  assert.deepEqual((await admin.read(id)).data, data);
  await admin.update(id, { data: { name: "Bob" } });
  assert.deepEqual((await admin.read(id)).data, { name: "Bob" });

  for (const wrong of [{ obj: {} }, { name: 1 }, { name: "x", obj: 1 }, [], 1, null, "text", '{"name":"in a string"}']) {
    await assert.rejects(admin.create({ data: wrong }), refused(400), JSON.stringify(wrong));
    await assert.rejects(admin.update(id, { data: wrong }), refused(400), JSON.stringify(wrong));
  }
  assert.deepEqual((await admin.read(id)).data, { name: "Bob" });

  const other = (await signedIn("0@localhost")).records("simple_schema_table");
  await assert.rejects(other.create({ data: { name: "x" } }), refused(403), "only one user may create");
  assert.deepEqual((await other.read(id)).data, { name: "Bob" });
  await assert.rejects(client.records("simple_schema_table").read(id), refused(403));
  await admin.delete(id);
});

test("conditional requests", async () => {
  const url = `${path}/open_strict_table/${await records.create({ text_not_null: mark("condition") })}`;
  const first = await raw(url);
  const tag = first.headers.get("etag");
  assert.match(tag, /^"[^"]+"$/, "a strong entity tag");
  const again = await raw(url, { headers: { "If-None-Match": `"other", ${tag}` } });
  assert.deepEqual([again.status, await again.text(), again.headers.get("etag")], [304, "", tag]);
  assert.equal((await raw(url, { headers: { "If-None-Match": '"other"' } })).status, 200);

  const patch = (n, match) => sendJSON("PATCH", url, { int_null: n }, { "If-Match": match });
  assert.equal((await patch(1, '"other"')).status, 412);
  const changed = await patch(2, tag);
  assert.equal(changed.status, 200);
  assert.equal((await patch(3, tag)).status, 412, "the version is gone");
  const now = await raw(url);
  assert.equal((await now.json()).int_null, 2);
  assert.notEqual(now.headers.get("etag"), tag);
  assert.equal(changed.headers.get("etag"), now.headers.get("etag"), "the answer to an update has the new tag");

  assert.equal((await raw(url, { method: "DELETE", headers: { "If-Match": tag } })).status, 412);
  assert.equal((await raw(url, { method: "DELETE", headers: { "If-Match": now.headers.get("etag") } })).status, 200);
});

test("repeated requests", async () => {
  const text = mark("idempotency");
  const total = async () => (await records.list({ filters: [{ column: "text_not_null", value: text }], count: true })).total_count;
  const value = { text_not_null: text };
  const batch = { operations: [{ Create: { api_name: "open_strict_table", value } }], transaction: true };
  let want = 0;
  for (const [suffix, body] of [[`${path}/open_strict_table`, value], ["/api/transaction/v1/execute", batch]]) {
    const key = { "Idempotency-Key": mark(suffix) };
    const answers = await Promise.all(Array.from({ length: 3 }, () => sendJSON("POST", suffix, body, key)));
    assert.deepEqual(answers.map((a) => a.status), [200, 200, 200]);
    const texts = await Promise.all(answers.map((a) => a.text()));
    assert.equal(new Set(texts).size, 1, "all have the same answer");
    assert.equal(await total(), ++want, `${suffix} has taken place once`);

    assert.equal((await sendJSON("POST", suffix, { ...body, more: 1 }, key)).status, 422, "the key of another request");
    assert.equal(await total(), want);
  }
});

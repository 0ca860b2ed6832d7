// The published TrailBase client against a server that runs the conformance fixture.
//
//   conformance/serve.sh --port 4005 &
//   cd conformance/js && npm ci && BEDPLATE_URL=http://127.0.0.1:4005 node --test run.mjs
//
// Every test makes its own rows, marked with the time of the run, so it may be repeated on the same database.

import assert from "node:assert/strict";
import { test } from "node:test";
import { FetchError, initClient } from "trailbase";

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

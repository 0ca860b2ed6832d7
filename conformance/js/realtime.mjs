// Subscriptions with the published TrailBase client and with an EventSource, against a server that runs the conformance
// fixture.
//
//   conformance/serve.sh --port 4005 &
//   cd conformance/js && npm ci && BEDPLATE_URL=http://127.0.0.1:4005 node --test realtime.mjs
//
// It may be repeated on the same database, but nobody else may write to it meanwhile.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { test } from "node:test";
import { EventSource } from "eventsource";
import { FetchError, initClient } from "trailbase";

const base = process.env.BEDPLATE_URL;
assert.ok(base, "set BEDPLATE_URL to the address of the server, such as http://127.0.0.1:4005");

const client = initClient(base);
const api = "open_strict_table";
const records = client.records(api);
const path = `/api/records/v1/${api}`;
const limit = { timeout: 120_000 };

const run = Date.now().toString(36);
const mark = (title) => `${title} ${run} =?&`;

const refused = (status, message) => (error) => {
  assert.ok(error instanceof FetchError, `want a FetchError, got ${error}`);
  assert.equal(error.status, status);
  if (message !== undefined) assert.equal(error.message, message);
  return true;
};

const signedIn = async () => {
  const user = initClient(base);
  await user.login("admin@localhost", "secret");
  return user;
};

// take reads n events, or all until the end of the stream.
async function take(stream, n = Infinity) {
  const reader = stream.getReader();
  const events = [];
  try {
    while (events.length < n) {
      const { done, value } = await reader.read();
      if (done) {
        assert.equal(n, Infinity, `the stream has ended after ${JSON.stringify(events)}`);
        break;
      }
      events.push(value);
    }
  } finally {
    await reader.cancel();
  }
  return events;
}

// listen collects what an EventSource receives until the end of the test.
function listen(t, url, init) {
  const source = new EventSource(url, init);
  t.after(() => source.close());
  const events = [];
  let wake = () => {};
  source.onmessage = (e) => {
    events.push({ ...JSON.parse(e.data), position: e.lastEventId });
    wake();
  };
  return {
    events,
    opened: new Promise((resolve) => source.addEventListener("open", resolve, { once: true })),
    async until(condition) {
      while (!condition()) await new Promise((resolve) => (wake = resolve));
    },
  };
}

// A way to the server that can be cut.
async function passage(t) {
  const { hostname, port } = new URL(base);
  const open = new Set();
  let budget = Infinity; // of bytes to clients, before the next cut
  const server = net.createServer((down) => {
    const up = net.connect(Number(port), hostname);
    for (const [from, to] of [[down, up], [up, down]]) {
      open.add(from);
      from.on("error", () => {});
      from.on("close", () => (open.delete(from), to.destroy()));
    }
    down.pipe(up);
    up.on("data", (bytes) => {
      if (bytes.length < budget) {
        down.write(bytes);
        budget -= bytes.length;
        return;
      }
      up.pause();
      down.end(bytes.subarray(0, budget));
      budget = Infinity;
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const cut = () => open.forEach((socket) => socket.destroy());
  t.after(() => (server.close(), cut()));
  return { url: `http://127.0.0.1:${server.address().port}`, cut, cutAfter: (bytes) => (budget = bytes) };
}

const texts = (events) => events.map((e) => e.Insert.text_not_null);

test("a table", limit, async () => {
  const stream = await records.subscribeAll();
  const id = await records.create({ text_not_null: mark("table") });
  const created = await records.read(id);
  await records.update(id, { text_not_null: mark("updated") });
  const updated = await records.read(id);
  await records.delete(id);
  assert.deepEqual(await take(stream, 3), [
    { Insert: created, seq: 1 },
    { Update: updated, seq: 2 },
    { Delete: updated, seq: 3 },
  ]);
});

test("a record", limit, async () => {
  const id = await records.create({ text_not_null: mark("record") });
  const stream = await records.subscribe(id);
  await records.create({ text_not_null: mark("another one") });
  await records.update(id, { text_not_null: mark("updated") });
  await records.delete(id);
  const events = await take(stream, 2);
  assert.deepEqual(events.map((e) => [Object.keys(e)[0], e.seq]), [["Update", 1], ["Delete", 2]]);
  for (const e of events) assert.equal((e.Update ?? e.Delete).text_not_null, mark("updated"));
});

test("a filter", limit, async () => {
  const updated = mark("filter, updated");
  const stream = await records.subscribeAll({ filters: [{ column: "text_not_null", value: updated }] });
  const id = await records.create({ text_not_null: mark("filter") });
  await records.update(id, { text_not_null: updated });
  await records.delete(id);
  const events = await take(stream, 2);
  assert.deepEqual(events.map((e) => [Object.keys(e)[0], e.seq]), [["Update", 1], ["Delete", 2]]);
  for (const e of events) assert.equal((e.Update ?? e.Delete).text_not_null, updated);
});

test("a row leaves the filter", limit, async () => {
  const text = mark("leaves");
  const stream = await records.subscribeAll({ filters: [{ column: "text_not_null", value: text }] });
  const id = await records.create({ text_not_null: text });
  await records.update(id, { text_not_null: mark("elsewhere") });
  await records.create({ text_not_null: text });
  const events = await take(stream, 3);
  assert.deepEqual(events.map((e) => [Object.keys(e)[0], e.seq]), [["Insert", 1], ["Delete", 2], ["Insert", 3]]);
  assert.equal(events[1].Delete.id, id);
  assert.equal(events[1].Delete.text_not_null, text, "what it was when it could be seen");
});

test("a signed-in user", limit, async () => {
  const mine = (await signedIn()).records("simple_strict_table");
  const stream = await mine.subscribeAll({ onLoss: () => assert.fail("loss") });
  const id = await mine.create({ text_not_null: mark("signed in") });
  await mine.update(id, { int_null: 1 });
  await mine.delete(id);
  assert.deepEqual((await take(stream, 3)).map((e) => [Object.keys(e)[0], e.seq]), [["Insert", 1], ["Update", 2], ["Delete", 3]]);
});

test("what is refused", limit, async () => {
  const user = await signedIn();
  await assert.rejects(client.records("simple_strict_table").subscribeAll(), refused(403));
  await assert.rejects(user.records("movies").subscribeAll(), refused(403), "it has no subscriptions");
  await assert.rejects(client.records("nonexistent").subscribeAll(), refused(405));
  await assert.rejects(records.subscribe("InvalidId0123"), refused(400, "Invalid id"));
  await assert.rejects(records.subscribe("AZH8mYTFd5OexZ71Jwjzyw=="), refused(404));
  const filters = [{ column: "nonexistent", value: "1" }];
  await assert.rejects(records.subscribeAll({ filters }), refused(400, "Invalid query"));
});

test("access is lost", limit, async () => {
  // It shows the rows of open_strict_table whose int_null is not 0.
  const shown = client.records("shown_strict_table");
  const id = await records.create({ text_not_null: mark("shown") });
  const [one, all] = [await shown.subscribe(id), await shown.subscribeAll()];
  await records.update(id, { text_null: "still" });
  await records.update(id, { int_null: 0, text_null: "secret" });
  await records.update(id, { text_null: "more of it" });
  await records.update(id, { int_null: 1, text_null: "back" });

  const ended = await take(one);
  assert.equal(ended.length, 2);
  assert.equal(ended[0].Update.text_null, "still");
  assert.equal(ended[1].Error.status, 1);
  assert.equal(ended[1].seq, 2);
  const events = await take(all, 3);
  assert.deepEqual(events.map((e) => [Object.keys(e)[0], e.seq]), [["Update", 1], ["Delete", 2], ["Update", 3]]);
  assert.equal(events[1].Delete.text_null, "still");
  assert.equal(events[2].Update.text_null, "back");
  await records.update(id, { int_null: 0 });
  await assert.rejects(shown.subscribe(id), refused(403));
});

test("a list and what came after it", limit, async (t) => {
  const text = mark("list");
  const written = [];
  const write = (async () => {
    while (written.length < 300) written.push(await records.create({ text_not_null: text }));
  })();
  const query = new URLSearchParams({ "filter[text_not_null]": text, limit: "1024" });
  let listed;
  for (let n = 0; n < 50; ) {
    listed = await fetch(new URL(`${path}?${query}`, base));
    n = (await listed.clone().json()).records.length;
  }
  const since = listed.headers.get("Change-Cursor");
  assert.ok(since, "a list tells where it is");
  const seen = (await listed.json()).records.map((r) => r.id);
  assert.ok(seen.length < 300, "the list is older than the last record");
  await write;

  const { events, until } = listen(t, new URL(`${path}/subscribe/*?${query}&since=${since}`, base));
  await until(() => seen.length + events.length >= 300);
  const last = await records.create({ text_not_null: text });
  await until(() => events.at(-1).Insert.id === last);
  assert.deepEqual([...seen, ...events.map((e) => e.Insert.id)].sort(), [...written, last].sort());
});

test("an EventSource resumes after a cut", limit, async (t) => {
  const way = await passage(t);
  const resumed = [];
  const { events, opened, until } = listen(t, `${way.url}${path}/subscribe/*`, {
    fetch: (url, init) => {
      resumed.push(init.headers["Last-Event-ID"]);
      return fetch(url, init);
    },
  });
  await opened;
  const all = [];
  const write = async (n) => {
    for (let i = 0; i < n; i++) {
      all.push(`${all.length} ${mark("cut")}`);
      await records.create({ text_not_null: all.at(-1) });
    }
  };
  await write(5);
  await until(() => events.length === 5);
  way.cut();
  await write(40);
  await until(() => events.length === 45);

  // In the middle of an event.
  way.cutAfter(1000);
  await write(20);
  await until(() => events.length === 65);
  await write(1);
  await until(() => events.length >= 66);

  assert.deepEqual(texts(events), all, "nothing is lost, nothing comes twice");
  assert.equal(new Set(events.map((e) => e.position)).size, 66);
  assert.equal(resumed.length, 3);
  assert.deepEqual(resumed.slice(0, 2), [undefined, events[4].position]);
  // Each connection counts for itself.
  const starts = [0, 5, events.findIndex((e) => e.position === resumed[2]) + 1];
  assert.ok(starts[2] > 45 && starts[2] < 65, "the second cut was among the last events");
  events.forEach((e, i) => assert.equal(e.seq, 1 + i - starts.findLast((s) => s <= i)));
});

test("a position that is not known", limit, async (t) => {
  const { events, until } = listen(t, new URL(`${path}/subscribe/*?since=elsewhere.1`, base));
  await until(() => events.length === 1);
  await records.create({ text_not_null: mark("gap") });
  await until(() => events.length === 2);
  assert.equal(events[0].Error.status, 2, "what is missing is told");
  assert.equal(events[0].seq, 1);
  assert.equal(events[1].Insert.text_not_null, mark("gap"));
  assert.equal(events[1].seq, 2);
});

test("an EventSource with a ticket", limit, async (t) => {
  const user = await signedIn();
  const ticketFor = (init) => fetch(new URL("/api/realtime/v1/ticket", base), { method: "POST", ...init });
  const response = await ticketFor({ headers: { Authorization: `Bearer ${user.tokens().auth_token}` } });
  assert.equal(response.status, 200);
  const { ticket } = await response.json();
  const url = new URL(`/api/records/v1/simple_strict_table/subscribe/*?ticket=${encodeURIComponent(ticket)}`, base);

  const { events, opened, until } = listen(t, url);
  await opened;
  await user.records("simple_strict_table").create({ text_not_null: mark("ticket") });
  await until(() => events.length === 1);
  assert.deepEqual(texts(events), [mark("ticket")]);

  assert.equal((await fetch(url)).status, 401, "a ticket is good once");
  assert.equal((await ticketFor()).status, 401, "strangers get none");
});

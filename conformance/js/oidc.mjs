// Sign-in at an OpenID Provider: the certified oidc-provider package on one side, discovery, authorization code with
// PKCE, nonce and JWKS in between, the server on the other, which the published client then uses.
//
//   BEDPLATE_URL=http://127.0.0.1:4005 OIDC_URL=http://127.0.0.1:4006 node --test oidc.mjs
//
// The server's configuration names OIDC_URL as the issuer of oidc0, with the id and secret below.

import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import Provider from "oidc-provider";
import { initClient } from "trailbase";

const base = process.env.BEDPLATE_URL;
const issuer = process.env.OIDC_URL;
assert.ok(base && issuer, "set BEDPLATE_URL and OIDC_URL");
const auth = "/api/auth/v1";

const people = {
  ada: { email: "ada@idp.example", email_verified: true, preferred_username: "ada" },
  eve: { email: "eve@idp.example", email_verified: false },
};

let server;
before(async () => {
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "bedplate",
      client_secret: "a secret of the test",
      redirect_uris: [`${base}${auth}/oauth/oidc0/callback`],
      response_types: ["code"],
      grant_types: ["authorization_code"],
    }],
    pkce: { required: () => true },
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["preferred_username"] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id] }) }),
    features: { devInteractions: { enabled: true } },
    cookies: { keys: [randomBytes(16).toString("hex")] },
  });
  server = provider.listen(Number(new URL(issuer).port), "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
});
after(() => {
  server.closeAllConnections();
  server.close();
});

// A browser: cookies by host, redirects step by step.
class Browser {
  #jars = new Map();

  async open(url, { form, ...init } = {}) {
    url = new URL(url, base);
    const jar = this.#jars.get(url.host) ?? this.#jars.set(url.host, new Map()).get(url.host);
    const response = await fetch(url, {
      redirect: "manual",
      ...(form && { method: "POST", body: new URLSearchParams(form) }),
      ...init,
      headers: { ...init.headers, cookie: [...jar].map(([k, v]) => `${k}=${v}`).join("; ") },
    });
    for (const c of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(c);
      if (value === "" || /max-age=0|expires=Thu, 01 Jan 1970/i.test(c)) jar.delete(name);
      else jar.set(name, value);
    }
    const location = response.headers.get("location");
    return { response, url, status: response.status, location: location && new URL(location, url) };
  }

  // follow goes on until a page is not at the provider any more, filling its forms.
  async follow(step, login) {
    for (let i = 0; i < 20; i++) {
      if (step.location) {
        if (step.location.origin !== issuer) return step.location;
        step = await this.open(step.location);
        continue;
      }
      const html = await step.response.text();
      const action = /<form[^>]* action="([^"]+)"/.exec(html)?.[1];
      assert.ok(action, `a form of the provider, not ${step.status} ${html}`);
      const prompt = /name="prompt" value="([^"]+)"/.exec(html)[1];
      step = await this.open(new URL(action, step.url), { form: { prompt, login, password: "any" } });
    }
    assert.fail("the provider leads in circles");
  }
}

const challengeOf = (verifier) => createHash("sha256").update(verifier).digest("base64url");

test("a browser signs in and comes back", async () => {
  const browser = new Browser();
  const start = await browser.open(`${auth}/oauth/oidc0/login?redirect_uri=/welcome`);
  assert.equal(start.status, 303);
  const callback = await browser.follow(start, "ada");
  assert.equal(callback.origin + callback.pathname, `${base}${auth}/oauth/oidc0/callback`);
  const end = await browser.open(callback);
  assert.equal(end.status, 303);
  assert.equal(end.location.pathname, "/welcome");
  assert.equal(end.response.headers.get("referrer-policy"), "no-referrer");
  const status = await (await browser.open(`${auth}/status`)).response.json();
  const client = initClient(base, { tokens: status });
  assert.equal(client.user().email, "ada@idp.example");
  const again = await browser.open(callback);
  assert.equal(again.status, 400, "a callback is good once");
});

test("the same person is the same user", async () => {
  const ids = [];
  for (let i = 0; i < 2; i++) {
    const browser = new Browser();
    await browser.open(await browser.follow(await browser.open(`${auth}/oauth/oidc0/login`), "ada"));
    const status = await (await browser.open(`${auth}/status`)).response.json();
    ids.push(initClient(base, { tokens: status }).user().id);
  }
  assert.equal(ids[0], ids[1]);
});

test("a native client gets a code", async () => {
  const verifier = randomBytes(48).toString("base64url");
  const browser = new Browser();
  const query = new URLSearchParams({
    redirect_uri: "myapp://signed-in", response_type: "code", pkce_code_challenge: challengeOf(verifier),
  });
  const end = await browser.open(await browser.follow(await browser.open(`${auth}/oauth/oidc0/login?${query}`), "ada"));
  assert.equal(end.location.protocol, "myapp:");
  const response = await fetch(new URL(`${auth}/token`, base), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ authorization_code: end.location.searchParams.get("code"), pkce_code_verifier: verifier }),
  });
  assert.equal(response.status, 200);
  assert.equal(initClient(base, { tokens: await response.json() }).user().email, "ada@idp.example");
});

test("an address that the provider has not verified is refused", async () => {
  const browser = new Browser();
  const end = await browser.open(await browser.follow(await browser.open(`${auth}/oauth/oidc0/login`), "eve"));
  assert.ok(end.status === 400 || end.status === 424, `status ${end.status}`);
});

test("a callback in another browser is refused", async () => {
  const browser = new Browser();
  const callback = await browser.follow(await browser.open(`${auth}/oauth/oidc0/login`), "ada");
  const other = await new Browser().open(callback);
  assert.equal(other.status, 400);
});

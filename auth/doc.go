// Package auth signs people and programs in: accounts with passwords and
// second factors, sessions, tokens that other services can verify, mails,
// sign-in at identity providers and keys for machines. It keeps everything in
// an SQLite database and needs nothing else of this module but the handle.
//
//	db, err := sqlite.Open(ctx, "app.db", sqlite.Options{})
//	...
//	users, err := auth.New(ctx, db, auth.Config{
//		SiteURL: "https://app.example.com",
//		Mailer:  smtp, // see auth/mail
//	})
//	...
//	defer users.Close()
//	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
//	mux.Handle("/_/auth/", users.PagesAt("/_/auth")) // sign-in pages, if wanted
//	mux.HandleFunc("/.well-known/jwks.json", users.ServeJWKS)
//	mux.Handle("GET /diary", users.RequireUser(http.HandlerFunc(diary)))
//	srv := &http.Server{Handler: users.Middleware(mux)}
//
// A handler behind [Service.Middleware] learns who is there by [FromContext].
// The routes are those of TrailBase's auth API, so its clients can sign in;
// what goes beyond it is listed in docs/auth.md, the manual. Package bedplate
// does this mounting when its Config.Auth is set.
//
// # Who is there
//
// A request has shown a bearer token or a cookie of a session here, an API key,
// or a token of one of Config.Issuers; User.Credential says which.
// [Service.RequireUser] lets all of them through but API keys with narrower
// scopes than all. Record APIs look at scopes by themselves; a handler of the
// application's own, for such keys, asks [User.Allows].
//
// There is no default account: [Service.SetupLink] returns a link for the first
// administrator. [Service.CreateUser] and the methods beside it manage accounts.
//
// # Sessions and tokens
//
// A sign-in begins a session, which lasts for Config.RefreshTTL and can be
// listed and ended. Its refresh token gets auth tokens: Ed25519 JWTs that live
// for Config.AccessTTL, name their session and can be verified by anybody with
// the keys of [Service.ServeJWKS]. Browsers get both as cookies.
//
// The service itself believes an auth token only while its session exists. A
// user that is disabled, removed, demoted or signed out is refused with the
// next request with cookies, and within 30 seconds with a bearer token: at
// once by the process that did it.
//
// A refresh token can be kept, as TrailBase's clients do, or rotated with each
// use ("rotate": true; cookies always are). Who shows a rotated one again ends
// the session, except within ten seconds of the first use, when the answer is
// the same successor, since tabs of a browser refresh at the same time.
//
// # What is where
//
// The tables begin with an underscore; _user is the one that access rules and
// the application's own tables refer to. A copy of the database is of no use
// to a thief: passwords are Argon2id hashes, tokens SHA-256 hashes, codes
// HMACs, and what must be read back, such as signing keys, is sealed with
// AES-256-GCM under the master key, which is a file of its own
// (Config.KeyFile). Whoever backs up the database must back up that file too,
// elsewhere.
//
// # Second factors
//
// Every way to sign in ends at the same place, which asks for the second
// factor of those who have one: a password, a mailed code, an identity
// provider and a new password alike.
//
// # Limits
//
// Failures are counted for each account, address and in all, in the database
// ([Limits]). Devices that have signed in before are counted by themselves, so
// that strangers cannot lock an owner out.
package auth

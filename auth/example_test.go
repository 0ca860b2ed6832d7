package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/sqlite"
)

// A page that needs a sign-in, on the application's own mux.
func Example() {
	ctx := context.Background()
	db, remove := exampleDB(ctx)
	defer remove()

	users, err := auth.New(ctx, db, auth.Config{SiteURL: "http://localhost:8080"})
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()

	diary := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "The diary of %s", auth.FromContext(r.Context()).Email)
	}
	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
	mux.Handle("/_/auth/", users.PagesAt("/_/auth"))
	mux.Handle("GET /diary", users.RequireUser(http.HandlerFunc(diary)))
	server := httptest.NewServer(users.Middleware(mux))
	defer server.Close()

	// People register on /_/auth/register and confirm their address. A program
	// can make an account as well.
	_, err = users.CreateUser(ctx, auth.CreateUser{Email: "ada@example.com", Password: "correct horse 7", Verified: true})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println(exampleGet(server.URL+"/diary", ""))
	token := exampleLogin(server.URL, "ada@example.com", "correct horse 7")
	fmt.Println(exampleGet(server.URL+"/diary", token))
	// Output:
	// 401
	// 200 The diary of ada@example.com
}

// Claims of the application's own are part of each auth token. Other services
// read them there, the application in User.Claims.
func ExampleHooks_claims() {
	ctx := context.Background()
	db, remove := exampleDB(ctx)
	defer remove()

	users, err := auth.New(ctx, db, auth.Config{
		Hooks: auth.Hooks{
			Claims: func(_ context.Context, u *auth.User) (map[string]any, error) {
				return map[string]any{"plan": "gold"}, nil
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()

	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
	mux.HandleFunc("GET /plan", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, auth.FromContext(r.Context()).Claims["plan"])
	})
	server := httptest.NewServer(users.Middleware(mux))
	defer server.Close()

	_, err = users.CreateUser(ctx, auth.CreateUser{Email: "ada@example.com", Password: "correct horse 7", Verified: true})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(exampleGet(server.URL+"/plan", exampleLogin(server.URL, "ada@example.com", "correct horse 7")))
	// Output: 200 gold
}

// An API key may do what its scopes say. Record APIs ask by themselves; a route
// of the application's own must.
func ExampleUser_Allows() {
	ctx := context.Background()
	db, remove := exampleDB(ctx)
	defer remove()

	users, err := auth.New(ctx, db, auth.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()

	report := func(w http.ResponseWriter, r *http.Request) {
		if !auth.FromContext(r.Context()).Allows("report", "read") { // nor is a request without a user
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, "The report")
	}
	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
	mux.HandleFunc("GET /report", report)
	server := httptest.NewServer(users.Middleware(mux))
	defer server.Close()

	_, err = users.CreateUser(ctx, auth.CreateUser{Email: "ada@example.com", Password: "correct horse 7", Verified: true})
	if err != nil {
		log.Fatal(err)
	}
	token := exampleLogin(server.URL, "ada@example.com", "correct horse 7")
	for _, api := range []string{"report", "posts"} {
		var made struct{ Key string }
		err := examplePost(server.URL+"/api/auth/v1/api_keys", token,
			`{"name": "nightly", "scopes": [{"api": "`+api+`", "operations": ["read"]}], "expires_in": 86400}`, &made)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(exampleGet(server.URL+"/report", made.Key))
	}
	// Output:
	// 200 The report
	// 403
}

// Another service verifies auth tokens with the public keys and without asking.
func ExampleService_ServeJWKS() {
	ctx := context.Background()
	db, remove := exampleDB(ctx)
	defer remove()

	users, err := auth.New(ctx, db, auth.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer users.Close()
	mux := http.NewServeMux()
	mux.Handle("/api/auth/v1/", users.At("/api/auth/v1"))
	mux.HandleFunc("/.well-known/jwks.json", users.ServeJWKS)
	server := httptest.NewServer(mux)
	defer server.Close()
	_, err = users.CreateUser(ctx, auth.CreateUser{Email: "ada@example.com", Password: "correct horse 7", Verified: true})
	if err != nil {
		log.Fatal(err)
	}
	token := exampleLogin(server.URL, "ada@example.com", "correct horse 7")

	// The other service fetches the keys, again when a token has an unknown one.
	res, err := http.Get(server.URL + "/.well-known/jwks.json") //nolint:noctx // an example
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	var set struct{ Keys []struct{ Kid, X string } }
	if err := json.NewDecoder(res.Body).Decode(&set); err != nil {
		log.Fatal(err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, k := range set.Keys {
		keys[k.Kid], _ = base64.RawURLEncoding.DecodeString(k.X)
	}

	claims, err := exampleVerify(token, keys)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(claims.Email)
	_, err = exampleVerify(token[:len(token)-1]+"!", keys)
	fmt.Println(err)
	// Output:
	// ada@example.com
	// not a token of ours
}

type exampleClaims struct {
	Sub, Email string
	Exp        int64
	Type       int
}

// exampleVerify verifies an auth token. A library for JSON Web Tokens does as
// well if it is told to accept EdDSA only.
func exampleVerify(token string, keys map[string]ed25519.PublicKey) (c exampleClaims, err error) {
	refused := errors.New("not a token of ours")
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c, refused
	}
	header, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	signature, err3 := base64.RawURLEncoding.DecodeString(parts[2])
	var h struct{ Alg, Kid string }
	if errors.Join(err1, err2, err3, json.Unmarshal(header, &h)) != nil || h.Alg != "EdDSA" {
		return c, refused
	}
	key := keys[h.Kid]
	if key == nil || !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), signature) {
		return c, refused
	}
	if err := json.Unmarshal(payload, &c); err != nil || c.Type != 1 || time.Now().Unix() > c.Exp {
		return c, refused
	}
	return c, nil
}

// exampleDB opens a database in a directory that remove removes.
func exampleDB(ctx context.Context) (db *sqlite.DB, remove func()) {
	dir, err := os.MkdirTemp("", "auth-example")
	if err != nil {
		log.Fatal(err)
	}
	if db, err = sqlite.Open(ctx, filepath.Join(dir, "app.db"), sqlite.Options{}); err != nil {
		log.Fatal(err)
	}
	return db, func() {
		if err := errors.Join(db.Close(), os.RemoveAll(dir)); err != nil {
			log.Print(err)
		}
	}
}

// exampleLogin signs in and returns the auth token.
func exampleLogin(site, email, password string) string {
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		log.Fatal(err)
	}
	var tokens auth.Tokens
	if err := examplePost(site+"/api/auth/v1/login", "", string(body), &tokens); err != nil {
		log.Fatal(err)
	}
	return tokens.AuthToken
}

// examplePost posts JSON and decodes the answer.
func examplePost(url, token, body string, answer any) error {
	status, text, err := exampleDo(http.MethodPost, url, token, body)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d %s", status, text)
	}
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), answer)
}

// exampleGet returns status and text of an answer.
func exampleGet(url, token string) string {
	status, text, err := exampleDo(http.MethodGet, url, token, "")
	if err != nil {
		log.Fatal(err)
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", status, text))
}

func exampleDo(method, url, token, body string) (status int, text string, err error) {
	req, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewBufferString(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	read, err := io.ReadAll(res.Body)
	return res.StatusCode, string(read), err
}

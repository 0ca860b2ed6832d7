package bedplate_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/realtime"
	"github.com/bedplate/bedplate/records"
)

const documentPath = "/api/openapi.json"

// describedConfig is that of a backend with a bit of everything.
func describedConfig(t testing.TB, dir string) bedplate.Config {
	t.Helper()
	store, err := records.OpenDir(filepath.Join(dir, "files"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	cfg := config(filepath.Join(dir, "app.db"))
	cfg.Files = &records.FilesConfig{Store: store}
	cfg.Auth = &auth.Config{Argon2: auth.Argon2{Memory: 64, Time: 1}, Anonymous: true, OTP: true, Providers: []auth.IdentityProvider{noProvider{}}, Mailer: make(inbox, 100), SiteURL: "http://localhost"}
	cfg.Realtime = &realtime.Config{}
	cfg.Migrations = sqlFile(`
		CREATE TABLE profile (user BLOB PRIMARY KEY REFERENCES _user(id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;
		CREATE TABLE author (id INTEGER PRIMARY KEY, pen_name TEXT, _secret TEXT, exclude_me TEXT) STRICT;
		CREATE TABLE post (id INTEGER PRIMARY KEY, author INTEGER REFERENCES author(id), title TEXT, place BLOB CHECK (ST_IsValid(place)), meta TEXT CHECK (jsonschema_matches('{"$defs":{"x":{"type":"string"}},"items":{"$ref":"#/$defs/x"}}', meta)),
			image TEXT CHECK (jsonschema('std.FileUpload', image)), images TEXT CHECK (jsonschema('std.FileUploads', images))) STRICT;
		CREATE VIEW title AS SELECT id, title FROM post;
		INSERT INTO author (id, pen_name) VALUES (1, 'Ann');
		INSERT INTO post (id, author, title) VALUES (1, 1, 'first');`)
	const everything = records.Create | records.Read | records.Update | records.Delete | records.Schema
	cfg.Records = []records.API{
		{Name: "posts", Table: "post", World: everything, Expand: []string{"author"}, Subscriptions: true},
		{Name: "authors", Table: "author", Authenticated: everything, Exclude: []string{"exclude_me"}, Back: []records.BackRelation{{Name: "posts", API: "posts", Column: "author"}}},
		{Name: "titles", Table: "title", World: everything},
		{Name: "nobody", Table: "post"},
		{Name: "inbox", Table: "post", World: records.Create, Authenticated: records.Schema},
		{Name: "admins", Table: "author", World: records.Read | records.Schema, Exclude: []string{"exclude_me"}, SchemaRule: `(SELECT admin FROM _user WHERE id = _USER_.id)`},
	}
	return cfg
}

// noProvider is an identity provider that is never reached.
type noProvider struct{}

func (noProvider) Provider() auth.Provider {
	return auth.Provider{Name: "none", Issuer: "https://none.example", Number: 900}
}

func (noProvider) AuthURL(context.Context, auth.AuthRequest) (string, error) {
	return "", errors.New("no provider")
}

func (noProvider) Exchange(context.Context, string, auth.AuthRequest) (auth.Identity, error) {
	return auth.Identity{}, errors.New("no provider")
}

// openAPIDocument is what a test reads of a document.
type openAPIDocument struct {
	OpenAPI    string                                `json:"openapi"`
	Servers    []map[string]string                   `json:"servers"`
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components map[string]map[string]json.RawMessage `json:"components"`
}

func parseDocument(t testing.TB, body []byte) (d openAPIDocument) {
	t.Helper()
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	return d
}

// apis returns the record APIs that a document shows.
func (d openAPIDocument) apis() []string {
	names := map[string]bool{}
	for path := range d.Paths {
		if rest, ok := strings.CutPrefix(path, "/api/records/v1/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// unrouted reports whether an answer says that there is no such operation, or
// that nobody has the permission for it.
func unrouted(path string, w *httptest.ResponseRecorder) bool {
	switch w.Code {
	case http.StatusMethodNotAllowed:
		return true
	case http.StatusNotFound:
		return !strings.HasPrefix(path, "/api/auth/")
	case http.StatusForbidden:
		return strings.HasPrefix(path, "/api/records/") && w.Body.Len() == 0
	case http.StatusBadRequest:
		return w.Body.String() == "Invalid field/column name"
	}
	return false
}

// target fills the parameters of a path in.
func target(path string) string {
	return strings.NewReplacer("{record}", "1", "{provider}", "none", "{channel}", "news", "{token}", "x", "{id}", "x", "{identity}", "x").Replace(path)
}

// Every operation of the document exists, and every route is an operation of
// the document.
func TestOpenAPIMatchesRoutes(t *testing.T) {
	t.Parallel()
	cfg := describedConfig(t, t.TempDir())
	b := open(t, cfg)
	newUser(t, b, "ann")
	token, _ := signIn(t, b.Handler(), "ann@example.com")
	body, err := b.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if early, err := bedplate.OpenAPI(t.Context(), b.DB, cfg); err != nil || string(early) != string(body) {
		t.Errorf("before a deployment the document is another one: %v", err)
	}
	d := parseDocument(t, body)

	// A record with files; their names differ from upload to upload.
	image := `{"filename":"a.txt","data":"YQ=="}`
	token.want(t, "PATCH", "/api/records/v1/posts/1", `{"image":`+image+`,"images":[`+image+`]}`, 200, "")
	var post struct {
		Image  struct{ Filename string }
		Images []struct{ Filename string }
	}
	if err := json.Unmarshal([]byte(token.want(t, "GET", "/api/records/v1/posts/1", "", 200, "")), &post); err != nil {
		t.Fatal(err)
	}
	files := strings.NewReplacer("/file/{column}", "/file/image", "/files/{column}/{filename}", "/files/images/"+post.Images[0].Filename)

	// Streams end at once, and what deletes goes last.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	send := func(method, path string) *httptest.ResponseRecorder {
		to := files.Replace(target(path))
		if strings.Contains(path, "/subscribe/") {
			r := httptest.NewRequestWithContext(ended, method, to, nil)
			r.Header = token.header.Clone()
			w := httptest.NewRecorder()
			b.Handler().ServeHTTP(w, r)
			return w
		}
		body := ""
		if method == "POST" || method == "PATCH" {
			body = "{}"
		}
		return token.send(method, to, body)
	}
	operations := 0
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for method := range d.Paths[path] {
			operations++
			method = strings.ToUpper(method)
			if method == "DELETE" || strings.HasSuffix(path, "/delete") || strings.HasSuffix(path, "/logout") || path == "/api/auth/v1/sessions" || strings.HasSuffix(path, "/admins/schema") { // which has a rule
				continue
			}
			if w := send(method, path); unrouted(path, w) && !strings.HasSuffix(path, "{channel}") {
				t.Errorf("%s %s is documented and answers %d %q", method, path, w.Code, w.Body)
			}
		}
	}
	if operations < 60 {
		t.Errorf("only %d operations", operations)
	}

	// All that could be a route.
	shapes := []string{documentPath, "/api/healthcheck", "/.well-known/jwks.json", "/api/transaction/v1/execute", "/api/realtime/v1/{channel}", "/api/realtime/v1/ticket"}
	for _, api := range cfg.Records {
		for _, shape := range []string{"", "/{record}", "/schema", "/{record}/file/{column}", "/{record}/files/{column}/{filename}", "/subscribe/{record}"} {
			shapes = append(shapes, "/api/records/v1/"+api.Name+shape)
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		for _, path := range shapes {
			switch {
			case method == "GET" && strings.HasSuffix(path, "/ticket"): // a channel
				continue
			case strings.HasSuffix(path, "/schema") && (method != "GET" || strings.Contains(path, "admins")): // a record; with a rule
				continue
			}
			_, documented := d.Paths[path][strings.ToLower(method)]
			w := send(method, path)
			exists := !unrouted(path, w)
			if strings.HasSuffix(path, "{channel}") {
				exists = w.Code == http.StatusForbidden
			}
			if exists != documented {
				t.Errorf("%s %s: documented %v, answers %d %q", method, path, documented, w.Code, w.Body)
			}
		}
	}
	for _, route := range []string{"POST /login", "POST /otp/login", "POST /login_anonymous", "GET /oauth/{provider}/login", "DELETE /sessions/{id}", "DELETE /delete", "POST /api_keys"} {
		method, path, _ := strings.Cut(route, " ")
		if d.Paths["/api/auth/v1"+path][strings.ToLower(method)] == nil {
			t.Errorf("%s is not documented", route)
		}
	}
}

// What is referred to is there.
func TestOpenAPIReferences(t *testing.T) {
	t.Parallel()
	b := open(t, describedConfig(t, t.TempDir()))
	body, err := b.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var root any
	if err := json.Unmarshal(body, &root); err != nil {
		t.Fatal(err)
	}
	refs := 0
	ids := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				refs++
				if !resolves(root, ref) {
					t.Errorf("%s is not there", ref)
				}
			}
			if id, ok := v["operationId"].(string); ok {
				if ids[id] {
					t.Errorf("operation %s twice", id)
				}
				ids[id] = true
			}
			for _, m := range v {
				walk(m)
			}
		}
	}
	walk(root)
	if refs < 100 || len(ids) < 60 {
		t.Errorf("%d references, %d operations", refs, len(ids))
	}
	for _, word := range []string{"_secret", "exclude_me", "nobody"} {
		if strings.Contains(string(body), word) {
			t.Errorf("the document has %q", word)
		}
	}
}

func resolves(root any, ref string) bool {
	path, ok := strings.CutPrefix(ref, "#/")
	for _, name := range strings.Split(path, "/") {
		o, _ := root.(map[string]any)
		root = o[name]
	}
	return ok && root != nil
}

// A caller is shown the APIs whose schema it may see.
func TestOpenAPIVisibility(t *testing.T) {
	t.Parallel()
	b := open(t, describedConfig(t, t.TempDir()))
	newUser(t, b, "ann")
	admin, err := b.Auth.CreateUser(t.Context(), auth.CreateUser{Email: "root@example.com", Password: testPassword, Verified: true, Admin: true})
	if err != nil {
		t.Fatal(admin, err)
	}
	ann, cookie := signIn(t, b.Handler(), "ann@example.com")
	root, _ := signIn(t, b.Handler(), "root@example.com")
	anybody := caller{handler: b.Handler()}
	var key struct{ Key string }
	if err := json.Unmarshal([]byte(ann.want(t, "POST", "/api/auth/v1/api_keys", `{"name":"k","scopes":[{"api":"authors","operations":["schema"]},{"api":"posts","operations":["read"]}]}`, 200, "")), &key); err != nil {
		t.Fatal(err)
	}
	all := []string{"admins", "authors", "inbox", "posts", "titles"}
	for name, c := range map[string]struct {
		caller
		want []string
	}{
		"anonymous": {anybody, []string{"posts", "titles"}},
		"user":      {ann, []string{"authors", "inbox", "posts", "titles"}},
		"cookie":    {cookie, []string{"authors", "inbox", "posts", "titles"}},
		"admin":     {root, all},
		"API key":   {bearer(b.Handler(), key.Key), []string{"authors"}},
		"bad token": {bearer(b.Handler(), "x"), []string{"posts", "titles"}},
	} {
		w := c.send("GET", documentPath, "")
		d := parseDocument(t, w.Body.Bytes())
		if got := d.apis(); !slices.Equal(got, c.want) || w.Code != 200 || d.OpenAPI != "3.1.0" {
			t.Errorf("%s: %d %v, want %v", name, w.Code, got, c.want)
		}
		for _, api := range all {
			if !slices.Contains(c.want, api) && strings.Contains(w.Body.String(), `"`+api) && api != "posts" { // a name of a relation, too
				t.Errorf("%s: the document mentions %s", name, api)
			}
		}
		if strings.Contains(w.Body.String(), "Ann") || strings.Contains(w.Body.String(), "_secret") {
			t.Errorf("%s: %s", name, w.Body)
		}
		// Included records of an API tell no more than the API does.
		if name == "anonymous" && strings.Contains(w.Body.String(), `"pen_name"`) {
			t.Error("anonymous readers see the columns of authors")
		}
		if d.Paths["/api/auth/v1/login"] == nil || d.Paths[documentPath] == nil || len(d.Servers) != 1 || d.Servers[0]["url"] != ".." {
			t.Errorf("%s: %v", name, d.Servers)
		}
	}
	whole, err := b.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if got := parseDocument(t, whole).apis(); !slices.Equal(got, all) {
		t.Errorf("the whole has %v, want %v", got, all)
	}
}

func TestOpenAPIRequests(t *testing.T) {
	t.Parallel()
	b := open(t, describedConfig(t, t.TempDir()))
	anybody := caller{handler: b.Handler()}
	first := anybody.send("GET", documentPath, "")
	tag := first.Header().Get("ETag")
	if first.Code != 200 || len(tag) < 10 || first.Header().Get("Content-Type") != "application/json" || !strings.Contains(first.Header().Get("Vary"), "Authorization") || first.Header().Get("Cache-Control") != "private, no-cache" {
		t.Errorf("%d %v", first.Code, first.Header())
	}
	known := caller{b.Handler(), http.Header{"If-None-Match": {tag}}}
	if w := known.send("GET", documentPath, ""); w.Code != 304 || w.Body.Len() > 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := anybody.send("HEAD", documentPath, ""); w.Code != 200 || w.Body.Len() > 0 || w.Header().Get("ETag") != tag {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := anybody.send("POST", documentPath, "{}"); w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	outer := http.NewServeMux()
	outer.Handle("/x/", http.StripPrefix("/x", b.Handler()))
	if w := (caller{handler: outer}).send("GET", "/x"+documentPath, ""); w.Body.String() != first.Body.String() {
		t.Error("another document behind a prefix")
	}
	// It follows the schema.
	(&live{Backend: b}).exec(t, "ALTER TABLE post ADD COLUMN subtitle TEXT")
	if w := known.send("GET", documentPath, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "subtitle") {
		t.Errorf("after a change: %d", w.Code)
	}
}

// A transaction needs what the operations in it do: nobody has to sign in if
// everybody may write to an API that the document shows.
func TestOpenAPITransaction(t *testing.T) {
	t.Parallel()
	note := func(world, authenticated records.Permission) []records.API {
		return []records.API{{Name: "notes", Table: "post", World: world, Authenticated: authenticated}}
	}
	const all = records.Create | records.Read | records.Update | records.Delete
	for name, test := range map[string]struct {
		apis []records.API
		open bool
	}{
		"world creates":    {note(records.Create, 0), true},
		"world deletes":    {note(records.Delete, all), true},
		"users write":      {note(records.Read|records.Schema, all), false},
		"nobody writes":    {note(records.Read, records.Read), false},
		"world sees views": {[]records.API{{Name: "titles", Table: "title", World: all}}, false},
	} {
		cfg := describedConfig(t, t.TempDir())
		cfg.Records = test.apis
		body, err := open(t, cfg).OpenAPI()
		if err != nil {
			t.Fatal(err)
		}
		var operation struct {
			Tags     []string
			Security []json.RawMessage
		}
		if err := json.Unmarshal(parseDocument(t, body).Paths["/api/transaction/v1/execute"]["post"], &operation); err != nil {
			t.Fatal(err)
		}
		open := len(operation.Security) > 0 && string(operation.Security[0]) == "{}"
		if !slices.Equal(operation.Tags, []string{"transaction"}) || len(operation.Security) == 0 || open != test.open ||
			!slices.ContainsFunc(operation.Security, func(r json.RawMessage) bool { return string(r) != "{}" }) {
			t.Errorf("%s: tags %q, security %s", name, operation.Tags, operation.Security)
		}
	}
}

// Without a sign-in and subscriptions there are no routes of theirs.
func TestOpenAPIPlain(t *testing.T) {
	t.Parallel()
	b := open(t, config(filepath.Join(t.TempDir(), "app.db")))
	body, err := b.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"/api/healthcheck", documentPath, "/api/records/v1/notes", "/api/records/v1/notes/{record}", "/api/transaction/v1/execute"}
	if got := slices.Sorted(maps.Keys(parseDocument(t, body).Paths)); !slices.Equal(got, want) {
		t.Errorf("paths %v, want %v", got, want)
	}
	if strings.Contains(string(body), `"security":[{`) {
		t.Error("requirements without a scheme")
	}
}

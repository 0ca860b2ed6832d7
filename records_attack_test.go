package bedplate_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/records"
)

// matrixConfig has an API of documents that are their owners' alone, with
// files, one that administrators may use, and one that nobody may.
func matrixConfig(t testing.TB) bedplate.Config {
	dir := t.TempDir()
	store, err := records.OpenDir(filepath.Join(dir, "files"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	cfg := liveConfig(dir)
	cfg.Files = &records.FilesConfig{Store: store}
	cfg.Migrations = sqlFile(`
		CREATE TABLE profile (user BLOB PRIMARY KEY REFERENCES _user(id) ON DELETE CASCADE, name TEXT NOT NULL) STRICT;
		CREATE TABLE doc (id INTEGER PRIMARY KEY, owner BLOB REFERENCES _user(id), title TEXT, _hidden TEXT DEFAULT 'TATTLE', one TEXT CHECK (jsonschema('std.FileUpload', one)), many TEXT CHECK (jsonschema('std.FileUploads', many))) STRICT;`)
	const (
		everything = records.Create | records.Read | records.Update | records.Delete | records.Schema
		own        = `_ROW_.owner = _USER_.id`
		admin      = `(SELECT admin FROM _user WHERE id = _USER_.id)`
	)
	cfg.Records = []records.API{
		{Name: "docs", Table: "doc", Authenticated: everything, CreateRule: `_REQ_.owner = _USER_.id`, ReadRule: own, UpdateRule: own, DeleteRule: own, Check: own, Subscriptions: true},
		{Name: "office", Table: "doc", Authenticated: everything, CreateRule: admin, ReadRule: admin, UpdateRule: admin, DeleteRule: admin, SchemaRule: admin, Subscriptions: true},
		{Name: "locked", Table: "doc", Subscriptions: true},
	}
	return cfg
}

// Who may use which route on whose row: seven kinds of callers, every route,
// and rows that are ada's, bob's and nobody's. What the table does not list is
// refused.
func TestD1_Matrix(t *testing.T) {
	t.Parallel()
	l := newLive(t, matrixConfig(t))
	ada, adas := l.login(t, "ada")
	bob, bobs := l.login(t, "bob")
	root, roots := l.login(t, "root")
	gone, left := l.login(t, "gone")
	if err := l.Auth.SetAdmin(t.Context(), root, true); err != nil {
		t.Fatal(err)
	}
	_, key := l.apiKey(t, adas.AuthToken, `[{"api":"docs","operations":["read"]}]`, 60)
	if err := l.Auth.SetDisabled(t.Context(), gone, true); err != nil {
		t.Fatal(err)
	}
	actors := []struct{ name, token string }{{"nobody", ""}, {"forged", adas.AuthToken + "x"}, {"gone", left.AuthToken}, {"ada", adas.AuthToken}, {"key", key}, {"bob", bobs.AuthToken}, {"admin", roots.AuthToken}}
	const upload = `{"filename":"a","data":"QQ=="}`
	fill := func() {
		l.exec(t, `DELETE FROM doc`)
		for i, c := range []struct {
			owner auth.UserID
			token string
		}{{ada, adas.AuthToken}, {bob, bobs.AuthToken}} {
			l.as(c.token).want(t, "POST", "/api/records/v1/docs", fmt.Sprintf(`{"id":%d,"owner":%q,"title":"t","one":%s,"many":[%[3]s]}`, i+1, c.owner, upload), 200, "")
		}
	}
	fill()
	routes := []struct{ name, method, path, body string }{
		{"list", "GET", "", ""}, {"create", "POST", "", `{"owner":"%o","title":"n"}`}, {"create of many", "POST", "", `[{"owner":"%o"}]`},
		{"read", "GET", "/#", ""}, {"read", "HEAD", "/#", ""}, {"read", "GET", "/#?fields=title", ""}, {"update", "PATCH", "/#", `{"title":"n"}`}, {"update", "PATCH", "/#", `{}`}, {"delete", "DELETE", "/#", ""},
		{"schema", "GET", "/schema", ""}, {"schema", "GET", "/schema?mode=Update", ""}, {"read", "GET", "/#/file/one", ""}, {"subscribe", "GET", "/subscribe/*", ""}, {"read", "GET", "/subscribe/#", ""},
		{"create", "BATCH", "", `{"Create":{"api_name":"%a","value":{"owner":"%o"}}}`}, {"update", "BATCH", "", `{"Update":{"api_name":"%a","record_id":"#","value":{"title":"n"}}}`}, {"delete", "BATCH", "", `{"Delete":{"api_name":"%a","record_id":"#"}}`},
	}
	owners := map[string]string{"1": ada.String(), "2": bob.String(), "99": "AAAAAAAAAAAAAAAAAAAAAA=="}
	requests := 0
	for _, api := range []string{"docs", "office", "locked"} {
		for _, a := range actors {
			for _, r := range routes {
				for _, id := range []string{"1", "2", "99"} {
					own := a.name == "ada" && id == "1" || a.name == "bob" && id == "2"
					signed := a.name == "ada" || a.name == "bob" || a.name == "admin"
					granted := false
					switch {
					case api == "office":
						granted = a.name == "admin" && (id != "99" || r.name == "schema") || signed && (r.name == "list" || r.name == "subscribe") // of what the rule grants
					case api == "locked":
					case r.name == "list" || r.name == "subscribe":
						granted = signed || a.name == "key"
					case r.name == "schema":
						granted = signed
					case r.name == "read":
						granted = own || a.name == "key" && id == "1"
					default:
						granted = own
					}
					text := strings.NewReplacer("#", id, "%o", owners[id], "%a", api)
					method, path, body := r.method, "/api/records/v1/"+api+text.Replace(r.path), text.Replace(r.body)
					if method == "BATCH" {
						method, path, body = "POST", "/api/transaction/v1/execute", `{"operations":[`+body+`],"transaction":true}`
					}
					status, answer := l.ask(t, a.token, method, path, body)
					requests++
					// An administrator who creates a row for nobody is refused by the foreign key.
					if granted != (status == 200) || !granted && status != 403 && !(a.name == "admin" && api == "office" && status == 400) {
						t.Errorf("%s: %s %s %s: %d %s, granted should be %v", a.name, method, path, body, status, answer, granted)
					}
					if strings.Contains(answer, "TATTLE") || !granted && answer != "" && status == 403 {
						t.Errorf("%s: %s %s %s: %d %s", a.name, method, path, body, status, answer)
					}
					if r.name == "list" && api == "office" && strings.Contains(answer, `"id"`) != (a.name == "admin") {
						t.Errorf("%s: list of the office: %s", a.name, answer)
					}
					if granted && method != "GET" && method != "HEAD" {
						fill()
					}
				}
			}
			status, answer := l.ask(t, a.token, "GET", "/api/openapi.json", "")
			shown := strings.Contains(answer, `"/api/records/v1/`+api)
			want := api == "docs" && (a.name == "ada" || a.name == "bob" || a.name == "admin") || api == "office" && a.name == "admin"
			if status != 200 || shown != want {
				t.Errorf("%s: the document is %d and shows %s: %v", a.name, status, api, shown)
			}
		}
	}
	if requests < 1000 {
		t.Errorf("%d requests", requests)
	}
	for _, tt := range []struct {
		token string
		ids   []string
		not   string
	}{{adas.AuthToken, []string{`"id":1`}, `"id":2`}, {bobs.AuthToken, []string{`"id":2`}, `"id":1`}, {key, []string{`"id":1`}, `"id":2`}, {roots.AuthToken, nil, `"id"`}} {
		_, answer := l.ask(t, tt.token, "GET", "/api/records/v1/docs", "")
		for _, id := range tt.ids {
			if !strings.Contains(answer, id) {
				t.Errorf("list without %s: %s", id, answer)
			}
		}
		if strings.Contains(answer, tt.not) {
			t.Errorf("list with %s: %s", tt.not, answer)
		}
	}
}

// ask makes a request over the network and reads what comes of the answer, of a
// stream the head.
func (l *live) ask(t testing.TB, token, method, path, body string) (status int, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, l.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.Header.Get("Content-Type") == "text/event-stream" {
		return res.StatusCode, ""
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// No header turns a request into another one or its maker into somebody else,
// and who was an administrator is none from the next request on.
func TestD15_HeadersAndOldClaims(t *testing.T) {
	t.Parallel()
	l := newLive(t, matrixConfig(t))
	ada, adas := l.login(t, "ada")
	root, _ := l.login(t, "root")
	if err := l.Auth.SetAdmin(t.Context(), root, true); err != nil {
		t.Fatal(err)
	}
	roots := l.again(t, "root")
	l.exec(t, `INSERT INTO doc (id, owner, title) VALUES (1, ?, 'one'), (2, ?, 'two')`, ada[:], root[:])
	const doc, office = "/api/records/v1/docs/1", "/api/records/v1/office/1"
	forged := http.Header{
		"Authorization": {"Bearer " + adas.AuthToken}, "Content-Type": {"application/json"},
		"X-Http-Method-Override": {"DELETE"}, "X-Http-Method": {"DELETE"}, "X-Method-Override": {"DELETE"}, "X-Original-Method": {"DELETE"}, "X-Original-Url": {"/api/records/v1/office/2"}, "X-Rewrite-Url": {"/api/records/v1/office/2"}, "X-Forwarded-Uri": {"/api/records/v1/office/2"}, "X-Forwarded-Prefix": {"/api/records/v1/office"},
		"X-User": {root.String()}, "X-User-Id": {root.String()}, "X-Remote-User": {"root"}, "Remote-User": {"root"}, "X-Forwarded-User": {"root"}, "X-Admin": {"true"}, "X-Roles": {"admin"}, "From": {"root@example.com"},
	}
	c := caller{l.Handler(), forged}
	c.want(t, "GET", doc, "", 200, `"title":"one"`)
	c.want(t, "POST", "/api/records/v1/docs?_method=DELETE", fmt.Sprintf(`{"id":3,"owner":%q,"_method":"DELETE"}`, ada), 200, "3")
	for _, path := range []string{"/api/records/v1/docs/2", office, "/api/records/v1/office/2"} {
		c.want(t, "GET", path, "", 403, "")
		c.want(t, "GET", path+"?_method=DELETE&method=DELETE", "", 403, "")
	}
	for _, method := range []string{"PUT", "POST", "TRACE", "OPTIONS", "CONNECT", "COPY", "MOVE", "LOCK", "PROPFIND", "LINK", "delete", "Delete", "DELETEX"} {
		w := c.send(method, doc, "")
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD, PATCH, DELETE" || w.Body.Len() != 0 {
			t.Errorf("%s: %d %v %s", method, w.Code, w.Header(), w.Body)
		}
	}
	for path, allow := range map[string]string{"/api/records/v1/docs": "GET, HEAD, POST", "/api/transaction/v1/execute": "POST", doc + "/file/one": "GET, HEAD", "/api/openapi.json": "GET, HEAD"} {
		for _, method := range []string{"TRACE", "PUT", "OPTIONS", "DELETE"} {
			if w := c.send(method, path, `{}`); w.Code != 405 || w.Header().Get("Allow") != allow {
				t.Errorf("%s %s: %d %v", method, path, w.Code, w.Header())
			}
		}
	}
	// HEAD is GET without the body, and does nothing.
	if w := c.send("HEAD", doc, ""); w.Code != 200 {
		t.Error(w.Code)
	}
	c.want(t, "GET", doc, "", 200, `"title":"one"`)

	admin := l.as(roots.AuthToken)
	admin.want(t, "GET", office, "", 200, "one")
	if err := l.Auth.SetAdmin(t.Context(), root, false); err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct{ method, path, body string }{{"GET", office, ""}, {"PATCH", office, `{"title":"x"}`}, {"DELETE", office, ""}, {"POST", "/api/records/v1/office", `{}`}, {"GET", "/api/records/v1/office/schema", ""}, {"POST", "/api/transaction/v1/execute", `{"operations":[{"Delete":{"api_name":"office","record_id":"1"}}],"transaction":true}`}, {"GET", "/api/records/v1/office/subscribe/1", ""}} {
		admin.want(t, q.method, q.path, q.body, 403, "")
	}
	if w := admin.send("GET", "/api/openapi.json", ""); strings.Contains(w.Body.String(), "office") {
		t.Error("the document shows what administrators may see")
	}
	// The right comes back by itself as well: the row of the user counts, not the token.
	l.exec(t, `UPDATE _user SET admin = 1 WHERE id = ?`, root[:])
	admin.want(t, "GET", office, "", 200, "one")
}

// What a proxy and this server could read in two ways is refused, or read by
// the standard, and the connection ends: no request hides in another.
func TestE8_Smuggling(t *testing.T) {
	t.Parallel()
	b := open(t, config(filepath.Join(t.TempDir(), "app.db")))
	server := httptest.NewServer(b.Handler())
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	rows := func() string {
		w := caller{handler: b.Handler()}.send("GET", "/api/records/v1/notes?count=true&limit=0", "")
		return w.Body.String()
	}
	const (
		post     = "POST /api/records/v1/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
		hidden   = "POST /api/records/v1/notes HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"text\":\"hidden\"}"
		readBack = "GET /api/records/v1/notes HTTP/1.1\r\nHost: x\r\n"
	)
	before := rows()
	for name, raw := range map[string]string{
		"two lengths":            post + "Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}" + hidden,
		"list of lengths":        post + "Content-Length: 2, 40\r\n\r\n{}" + hidden,
		"signed length":          post + "Content-Length: +2\r\n\r\n{}" + hidden,
		"negative length":        post + "Content-Length: -2\r\n\r\n{}" + hidden,
		"hexadecimal length":     post + "Content-Length: 0x2\r\n\r\n{}" + hidden,
		"huge length":            post + "Content-Length: 99999999999999999999\r\n\r\n{}" + hidden,
		"space before colon":     post + "Content-Length : 2\r\n\r\n{}" + hidden,
		"folded header":          post + "X: a\r\n b\r\nContent-Length\r\n : 2\r\n\r\n{}" + hidden,
		"NUL in a header":        post + "X: a\x00b\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"CR in a header":         post + "X: a\rContent-Length: 2\r\n\r\n{}" + hidden,
		"odd encoding":           post + "Transfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"encoding twice":         post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"encodings":              post + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + hidden,
		"vertical tab":           post + "Transfer-Encoding:\x0bchunked\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"bad chunk":              post + "Transfer-Encoding: chunked\r\n\r\nx\r\n{}\r\n0\r\n\r\n" + hidden,
		"negative chunk":         post + "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" + hidden,
		"huge chunk":             post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n{}\r\n0\r\n\r\n" + hidden,
		"chunk without end":      post + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}" + hidden,
		"HTTP/1.0 and encoding":  strings.Replace(post, "1.1", "1.0", 1) + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n1\r\nx\r\n0\r\n\r\n" + hidden,
		"no host":                "POST /api/records/v1/notes HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"two hosts":              post + "Host: y\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"host with a path":       strings.Replace(post, "Host: x", "Host: x/../y", 1) + "Content-Length: 2\r\n\r\n{}" + hidden,
		"space in the target":    strings.Replace(post, "/notes", "/no tes", 1) + "Content-Length: 2\r\n\r\n{}" + hidden,
		"HTTP/2 preface":         "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + hidden,
		"HTTP/0.9":               "POST /api/records/v1/notes\r\n" + hidden,
		"method with a space":    " " + post + "Content-Length: 2\r\n\r\n{}",
		"header of a megabyte":   post + "X: " + strings.Repeat("a", 2<<20) + "\r\nContent-Length: 2\r\n\r\n{}",
		"header without a name":  post + ": x\r\nContent-Length: 2\r\n\r\n{}" + hidden,
		"header with a bad name": post + "Content Length: 2\r\n\r\n{}" + hidden,
		"TRACE":                  "TRACE /api/records/v1/notes/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer TATTLE\r\nConnection: close\r\n\r\n",
	} {
		statuses, text := exchange(t, host, raw)
		if len(statuses) != 1 || statuses[0] < 400 || strings.Contains(text, "TATTLE") {
			t.Errorf("%s: %d\n%.300s", name, statuses, text)
		}
		if after := rows(); after != before {
			t.Fatalf("%s: a record was made: %s", name, after)
		}
	}
	// The body of a GET belongs to it. Line feeds alone end lines of net/http, and nothing else follows from them.
	statuses, _ := exchange(t, host, readBack+fmt.Sprintf("Connection: close\r\nContent-Length: %d\r\n\r\n%s", len(hidden), hidden))
	if len(statuses) != 1 || statuses[0] != 200 || rows() != before {
		t.Errorf("a body of a GET: %d, %s", statuses, rows())
	}
	// With both a length and chunks, chunks count (RFC 9112, section 6.3), so that nothing of the rest belongs to the body.
	statuses, _ = exchange(t, host, post+"Connection: close\r\nTransfer-Encoding: chunked\r\nContent-Length: 200\r\n\r\n0\r\n\r\n"+hidden)
	if len(statuses) != 1 || statuses[0] < 400 || rows() != before {
		t.Errorf("both a length and chunks: %d, %s", statuses, rows())
	}
}

// exchange sends raw bytes, and returns the statuses of all answers until the
// server ends the connection.
func exchange(t testing.TB, host, raw string) (statuses []int, text string) {
	t.Helper()
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(conn, raw) // the server may have hung up
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	var all strings.Builder
	lines := bufio.NewReader(io.TeeReader(conn, &all))
	for {
		res, err := http.ReadResponse(lines, nil)
		if err != nil {
			break
		}
		statuses = append(statuses, res.StatusCode)
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	<-done
	return statuses, all.String()
}

// Whatever is in a record, a change of it is one event.
func TestE10_ValuesInStreams(t *testing.T) {
	t.Parallel()
	l := newLive(t, liveConfig(t.TempDir()))
	s := l.stream(t, "/api/records/v1/notes/subscribe/*")
	for i, text := range []string{"a\nb", "a\r\nb", "a\rb", "a\n\ndata: {\"Insert\":{}}\n\n", "\nid: 1\n", "\nevent: x\ndata: y", ":\n", "retry: 1\n\n", "\u2028data: x\u2029\u0085", "\ufeffdata: x", "\x0b\x0c\x1c\x1d\x1e"} {
		l.exec(t, `INSERT INTO note (id, text) VALUES (?, ?)`, 100+i, text)
		f, _ := s.next()
		var event struct {
			Insert struct {
				ID   int
				Text string
			}
			Seq int
		}
		if err := json.Unmarshal([]byte(f.data), &event); err != nil || event.Insert.ID != 100+i || event.Insert.Text != text || event.Seq != i+1 || f.event != "" || f.retry != "" {
			t.Fatalf("%q: %+v %v", text, f, err)
		}
	}
}

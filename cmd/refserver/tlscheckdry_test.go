package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/sqlite"
	"github.com/bedplate/bedplate/tlsauto"
)

// dryRunConfig is the configuration of a server whose staging directory is a fake.
func dryRunConfig(t *testing.T, staging *fakeAuthority) (config, data string) {
	t.Helper()
	return backedUpConfig(t, `
tls:
  mode: acme
  acme:
    domains: [site.example, [a.site.example, b.site.example]]
    agree_tos: true
    directory: '`+downURL(t)+`'
    staging: '`+staging.url+`'
    ca_file: '`+staging.caFile+`'
`)
}

// A server that runs answers the challenges, and nothing of the dry run reaches it otherwise.
func TestDryRunBesideServer(t *testing.T) {
	t.Parallel()
	staging := newFakeAuthority(t)
	config, data := dryRunConfig(t, staging)
	serve := func() *running {
		return startHere(t, "listening", "serve", "--listen=127.0.0.1:0", "--http-redirect-address=127.0.0.1:0", "--config", config)
	}
	s := serve()
	if err := s.end(t); err != nil {
		t.Fatalf("%v\n%s", err, s.logs)
	}
	trusting := &tls.Config{RootCAs: obtain(t, config), ServerName: "site.example"}
	s = serve()
	https, redirect := addressIn(s.url), addressIn(s.awaitURL(t, "redirecting"))
	staging.reach(https, redirect)
	served := func() string {
		t.Helper()
		_, _, state, err := fetch(t, s.url+"/livez", trusting)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.logs)
		}
		return state.PeerCertificates[0].SerialNumber.String()
	}
	until(t, "a server with both certificates", func() bool {
		_, err := tryCommand(t, config, "", "tls", "status")
		return err == nil
	})
	serial, before := served(), tlsRows(t, data)
	args := []string{"tls", "check", "--dry-run", "--listen", https, "--http-redirect-address", redirect}

	out := command(t, config, "", args...)
	for _, want := range []string{
		"Ordering from " + staging.url + "\n", "ok  https        " + https + ": the server with process ID", "ok  http         " + redirect,
		"site.example\n    ok  tls-alpn-01  proved\n    ok  certificate  of CN=staging, until ", "chain        CN=staging, of CN=staging",
		"a.site.example b.site.example\n    ok  tls-alpn-01  proved\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if n := staging.count("/account"); n != 1 {
		t.Errorf("%d accounts", n)
	}
	if out := command(t, config, "", append(args, "B.site.example", "a.site.example")...); strings.Count(out, "ok  certificate") != 1 {
		t.Errorf("with names of one certificate:\n%s", out)
	}

	// The server answers for the names that it was started with: for others nothing is ordered.
	orders := staging.count("/new")
	added := append(slices.Clone(args), "--acme-domains=site.example,New.site.example", "new.site.example")
	out, err := tryCommand(t, config, "", added...)
	if err == nil || !strings.Contains(out, "started without new.site.example") || staging.count("/new") != orders {
		t.Errorf("a name that the server does not know: %v\n%s", err, out)
	}

	// It is interrupted when the answer to a challenge is there: that goes, too.
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	staging.validated(func(_ context.Context, _, name string, _ error) {
		if rows := tlsRows(t, data); !strings.Contains(rows, "tlsalpn01+"+name) {
			t.Errorf("no answer in the store:\n%s", rows)
		}
		interrupt()
	})
	p := &program{ctx, strings.NewReader(""), newBuffer(), newBuffer()}
	err = run(p, append(args, "--config", config, "site.example"))
	if err == nil || !strings.Contains(err.Error(), "1 of 1 certificates could not be obtained") || !strings.Contains(fmt.Sprint(p.stdout), "context canceled") {
		t.Errorf("interrupted: %v\n%s", err, p.stdout)
	}
	if after := tlsRows(t, data); after != before {
		t.Errorf("the store has\n%s\nand had\n%s", after, before)
	}
	until(t, "a challenge that is not answered", func() bool { // the server knows for a moment what it has found
		return staging.answered(t.Context(), "tls-alpn-01", "site.example", "") != nil
	})
	if now := served(); now != serial {
		t.Errorf("the certificate %s is served, it was %s", now, serial)
	}
	if err := s.end(t); err != nil {
		t.Errorf("%v\n%s", err, s.logs)
	}
}

var answers = regexp.MustCompile(`ok  (https?) +(\S+): this command answers`)

// Without a server the command answers itself, where nobody else does.
func TestDryRunAlone(t *testing.T) {
	t.Parallel()
	foreign, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			conn, err := foreign.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { foreign.Close() })
	free, taken := "127.0.0.1:0", foreign.Addr().String()
	const group, autocert = "a.site.example", "--acme-domains=site.example"
	for name, tt := range map[string]struct {
		https, http string // where to listen
		args        string
		good        bool
		want        []string
	}{
		"one name":         {free, "", autocert, true, []string{"ok  tls-alpn-01  proved", "ok  certificate  of CN=staging"}},
		"one, by http-01":  {taken, free, autocert, true, []string{"NO  https", "ok  http-01      proved"}},
		"several names":    {free, free, group, true, []string{"ok  tls-alpn-01  proved"}},
		"several, http-01": {taken, free, group, true, []string{"NO  https", "NO  certificate  validate a.site.example by tls-alpn-01: 403 unauthorized: looked there: ", "ok  http-01      proved"}},
		"a choice":         {free, free, "--acme-challenge=http-01", true, []string{"ok  http-01      proved"}},
		"somebody else's": {taken, taken, "", false, []string{
			"address already in use; no server with this data directory", "NO  certificate  validate site.example by tls-alpn-01: 403 unauthorized: looked there: ",
			"NO  certificate  validate b.site.example by http-01: 403 unauthorized: looked there: ",
		}},
		"somebody else's, one": {taken, taken, autocert, false, []string{
			"NO  certificate  obtain a certificate for site.example: validate site.example by tls-alpn-01: 403 unauthorized: looked there: ",
			"NO  certificate  validate site.example by http-01: 403 unauthorized: looked there: ",
		}},
		"in use, and alone": {taken, "", group, false, []string{"by tls-alpn-01: 403"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			staging := newFakeAuthority(t)
			config, data := dryRunConfig(t, staging)
			out := newBuffer()
			staging.reachBy(func() (https, http string) { // which the command tells before it orders
				https, http = tt.https, tt.http
				for _, found := range answers.FindAllStringSubmatch(out.String(), -1) {
					if found[1] == "https" {
						https = found[2]
					} else {
						http = found[2]
					}
				}
				return https, http
			})
			args := append([]string{"tls", "check", "--dry-run", "--config", config, "--listen", tt.https}, strings.Fields(tt.args)...)
			if tt.http != "" {
				args = append(args, "--http-redirect-address", tt.http)
			}
			err := run(&program{t.Context(), strings.NewReader(""), out, newBuffer()}, args)
			if (err == nil) != tt.good {
				t.Errorf("error %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if _, err := os.Stat(data); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is a data directory now: %v", err)
			}
		})
	}
}

// What hangs ends, and what says when to come again is heard.
func TestDryRunTrouble(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		trouble http.HandlerFunc
		timeout string
		want    []string
	}{
		"hanging": {
			func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "100ms",
			[]string{"site.example\n    NO  certificate  ", "context deadline exceeded\na.site.example b.site.example\n    NO  certificate  it was not tried: context deadline exceeded"},
		},
		"overloaded": {
			func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "90")
				http.Error(w, "later", http.StatusServiceUnavailable)
			}, "1m",
			[]string{"503: later (it wants to be left alone for 1m30s)"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			staging := newFakeAuthority(t)
			config, _ := dryRunConfig(t, staging)
			staging.instead(tt.trouble)
			out, err := tryCommand(t, config, "", "tls", "check", "--dry-run", "--listen=127.0.0.1:0", "--timeout", tt.timeout)
			if err == nil || !strings.Contains(err.Error(), "2 of 2 certificates could not be obtained") {
				t.Errorf("error %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// A dry run never comes to a directory that counts.
func TestStagingDirectory(t *testing.T) {
	t.Parallel()
	const private = "https://ca.example/acme/directory"
	for _, tt := range []struct {
		directory, staging, given string
		want, mistake             string
	}{
		{"", "", "", tlsauto.LetsEncryptStaging, ""},
		{"letsencrypt", "", "", tlsauto.LetsEncryptStaging, ""},
		{tlsauto.LetsEncrypt, "", "", tlsauto.LetsEncryptStaging, ""},
		{"letsencrypt-staging", "", "", tlsauto.LetsEncryptStaging, ""},
		{"letsencrypt-staging", "", tlsauto.LetsEncryptStaging, tlsauto.LetsEncryptStaging, ""},
		{"", "https://a.example/dir", "", "https://a.example/dir", ""},
		{"", "https://a.example/dir", "https://b.example/dir", "https://b.example/dir", ""},
		{"", "https://a.example/dir", "letsencrypt-staging", tlsauto.LetsEncryptStaging, ""},
		{private, "", "https://ca.example/test/directory", "https://ca.example/test/directory", ""},
		{private, "", "", "", "which staging directory"},
		{private, "", private, "", "is where certificates are ordered"},
		{private, "", "https://CA.example.:443/acme/./directory/", "", "is where certificates are ordered"},
		{private, "", "letsencrypt", "", "is for production"},
		{private, "", "https://ACME-v02.api.letsencrypt.org:443/directory?x", "", "is for production"},
		{"", "", "letsencrypt", "", "is for production"},
		{"", "", "http://a.example/dir", "", "a URL of https"},
		{"", "", "staging", "", "a URL of https"},
	} {
		c := acmeConfig{Directory: tt.directory, Staging: tt.staging}
		got, err := c.stagingURL(tt.given)
		if tt.mistake != "" && (err == nil || !strings.Contains(err.Error(), tt.mistake)) || tt.mistake == "" && (err != nil || got != tt.want) {
			t.Errorf("%+v: %s, %v", tt, got, err)
		}
	}
}

func TestDryRunMistakes(t *testing.T) {
	t.Parallel()
	staging := newFakeAuthority(t)
	config, _ := dryRunConfig(t, staging)
	for want, args := range map[string]string{
		"is where certificates are ordered":  "--dry-run --acme-directory " + staging.url,
		"is for production":                  "--dry-run --directory letsencrypt",
		`no certificate for "other.example"`: "--dry-run other.example",
		"the mode is selfsigned":             "--dry-run --tls-mode selfsigned",
		"--timeout must be positive":         "--dry-run --timeout 0s",
		"--directory is for --dry-run":       "--directory letsencrypt-staging",
	} {
		_, err := tryCommand(t, config, "", append([]string{"tls", "check"}, strings.Fields(args)...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
	if n := staging.count(""); n > 0 {
		t.Errorf("%d requests", n)
	}
}

func addressIn(url string) string {
	_, address, _ := strings.Cut(url, "://")
	return address
}

// tlsRows is what the store of certificates has, and its leases.
func tlsRows(t *testing.T, data string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	db, err := sql.Open(sqlite.DriverName, "file:"+filepath.Join(data, "main.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(ctx, "SELECT name || ' ' || hex(value) FROM _tls UNION ALL SELECT 'lease ' || name FROM _tls_lease")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		all = append(all, row)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

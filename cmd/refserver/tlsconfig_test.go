package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestLoadTLS(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
tls:
  mode: acme
  files_interval: 1m
  http_redirect_address: ":80"
  hsts: 8760h
  client_ca: clients.pem
  client_auth: optional
  require_ready: 90s
  acme:
    domains: [example.com, [a.example.com, b.example.com]]
    email: admin@example.com
    directory: https://ca.example/dir
    staging: https://ca.example/test/dir
    ca_file: ca.pem
    profile: shortlived
    challenge: http-01
    eab_kid: kid
    eab_hmac_file: eab
    agree_tos: true
`)
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	got := conf.TLS
	got.given = nil
	want := tlsConfig{
		Mode: modeACME, FilesInterval: time.Minute, RedirectAddress: ":80", HSTS: 365 * 24 * time.Hour,
		ClientCA: filepath.Join(dir, "clients.pem"), ClientAuth: clientAuthOptional, RequireReady: 90 * time.Second,
		ACME: acmeConfig{
			Names: [][]string{{"example.com"}, {"a.example.com", "b.example.com"}}, Email: "admin@example.com",
			Directory: "https://ca.example/dir", Staging: "https://ca.example/test/dir", CAFile: filepath.Join(dir, "ca.pem"), Profile: "shortlived", Challenge: "http-01",
			EABKeyID: "kid", EABFile: filepath.Join(dir, "eab"), AgreeTOS: true,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestLoadTLSReportsEveryMistake(t *testing.T) {
	t.Parallel()
	const text = `
tls:
  mode: letsencrypt              # want one of acme, files, off, selfsigned, found "letsencrypt"
  certificate: x                 # unknown key "certificate"
  cert: 1                        # want text, found 1
  files_interval: 10             # want a length of time
  hsts: 1y                       # want a length of time
  client_auth: "yes"             # want one of optional, require
  require_ready: true            # want a length of time
  acme:
    domains: example.com         # want a list, found "example.com"
    agree_tos: "yes"             # want true or false
    must_staple: true            # unknown key "must_staple"
`
	wantMistakes(t, writeConfig(t, text), text)
	const hollow = `
tls: {acme: {domains: [[]]}}     # a certificate needs a name
`
	wantMistakes(t, writeConfig(t, hollow), hollow)
}

// Whatever is wrong is told at once, of a setting in the file with its line and of others by their flags.
func TestTLSMistakes(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	ca := newAuthority(t, "one")
	pair := ca.issue(t, data, "localhost")
	write(t, filepath.Join(data, "not.pem"), "not PEM")
	for name, tt := range map[string]struct {
		file  string // of the configuration, from its second line
		flags string
		want  []string // "N: " stands for the N-th line of the file
	}{
		"unknown mode":     {"", "--tls-mode=on", []string{`--tls-mode: "on" is none of`}},
		"no mode":          {"tls: {hsts: 1h}", "", []string{"2: tls: a mode is needed"}},
		"no mode by flag":  {"", "--acme-domains=example.com", []string{"--acme-domains: a mode is needed"}},
		"one flag":         {"", "--tls-cert=" + pair.cert, []string{"--tls-cert: certificate and key are needed both"}},
		"the other":        {"", "--tls-mode=files --tls-key=" + pair.key, []string{"--tls-key: certificate and key are needed both"}},
		"one in the file":  {"tls:\n  mode: files\n  key: x", "", []string{"4: tls: certificate and key are needed both"}},
		"no files":         {"tls:\n  mode: files", "", []string{"cert.pem"}},
		"garbage":          {"", "--tls-key=" + pair.key + " --tls-cert=" + filepath.Join(data, "not.pem"), []string{"--tls-cert: ", "not.pem"}},
		"of another mode":  {"", "--tls-mode=selfsigned --acme-email=a@example.com --tls-key=x", []string{"--acme-email: the mode is selfsigned", "--tls-key: the mode is selfsigned"}},
		"client auth":      {"tls:\n  mode: files\n  client_auth: require\n  cert: " + pair.cert + "\n  key: " + pair.key, "", []string{"4: tls: clients can be asked"}},
		"how":              {"", "--tls-client-ca=" + ca.file + " --tls-client-auth=maybe --tls-cert=" + pair.cert + " --tls-key=" + pair.key, []string{`--tls-client-auth: "maybe" is neither`}},
		"no authorities":   {"", "--tls-client-ca=" + pair.key + " --tls-cert=" + pair.cert + " --tls-key=" + pair.key, []string{"--tls-client-ca: "}},
		"redirect address": {"", "--http-redirect-address=80 --tls-cert=" + pair.cert + " --tls-key=" + pair.key, []string{"--http-redirect-address: address 80: missing port"}},
		"acme":             {"", "--tls-mode=acme", []string{"--acme-domains: the names", "--acme-agree-tos: it has to be agreed to the terms of service of acme-v02.api.letsencrypt.org"}},
		"everything": {
			"tls:\n  mode: acme\n  acme:\n    domains: ['*.example.com', 'a b']\n    directory: http://ca.example\n    eab_kid: x\n    challenge: dns-01\n    ca_file: not.pem",
			"", []string{"5: tls: \"*.example.com\" can be proved", `5: tls: `, `"a b"`, "6: tls: ", "7: tls: --acme-eab-kid and", `8: tls: "dns-01" is neither`, "9: tls: "},
		},
		"staging is production": {
			"tls:\n  mode: acme\n  acme:\n    domains: [example.com]\n    agree_tos: true\n    directory: https://ca.example/dir\n    staging: https://ca.example/dir/",
			"", []string{`8: tls: "https://ca.example/dir/" is where certificates are ordered`},
		},
		"staging by http": {
			"tls:\n  mode: acme\n  acme:\n    domains: [example.com]\n    agree_tos: true\n    staging: http://ca.example/dir",
			"", []string{`7: tls: "http://ca.example/dir" is none of`},
		},
		"http-01": {"", "--tls-mode=acme --acme-domains=example.com --acme-agree-tos --acme-challenge=http-01", []string{"--acme-challenge: http-01 is answered at"}},
		"required certificates": {
			"", "--tls-mode=acme --acme-domains=example.com --acme-agree-tos --acme-challenge=tls-alpn-01 --tls-client-ca=" + ca.file,
			[]string{"--acme-challenge: authorities have no certificate"},
		},
		"EAB key": {"", "--tls-mode=acme --acme-domains=example.com --acme-agree-tos --acme-eab-kid=x --acme-eab-hmac-file=" + pair.key, []string{"--acme-eab-hmac-file: ", "is not base64url"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"--data-dir", t.TempDir()}, strings.Fields(tt.flags)...)
			file := ""
			if tt.file != "" {
				file = writeConfig(t, "server: {}\n"+tt.file+"\n")
				write(t, filepath.Join(filepath.Dir(file), "not.pem"), "not PEM")
				args = append(args, "--config", file)
			}
			_, err := settingsOf(t, args...)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if want[0] >= '0' && want[0] <= '9' {
					want = file + ":" + want
				}
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in\n%v", want, err)
				}
			}
			if n := strings.Count(err.Error(), "\n") + 1; n > max(len(tt.want), 1) {
				t.Errorf("%d mistakes:\n%v", n, err)
			}
			if text, _ := os.ReadFile(pair.key); strings.Contains(err.Error(), strings.Split(string(text), "\n")[1]) {
				t.Error("the key is told")
			}
		})
	}
}

func TestTLSSettings(t *testing.T) {
	ca := newAuthority(t, "one")
	pair := ca.issue(t, t.TempDir(), "localhost")
	data := t.TempDir()
	file := writeConfig(t, `
tls:
  mode: acme
  client_ca: `+ca.file+`
  client_auth: optional
  acme: {domains: [file.example], agree_tos: true, directory: letsencrypt-staging}
`)
	t.Setenv("BEDPLATE_TLS_REQUIRE_READY", "5s")
	for name, tt := range map[string]struct {
		args  []string
		mode  tlsMode
		names string
		url   string
		ready time.Duration
	}{
		"nothing":              {nil, modeOff, "", "http://localhost:4000", 5 * time.Second},
		"off":                  {[]string{"--config", file, "--tls-mode=off"}, modeOff, "", "http://localhost:4000", 5 * time.Second},
		"files":                {[]string{"--tls-cert=" + pair.cert, "--tls-key=" + pair.key, "--tls-require-ready"}, modeFiles, "", "https://localhost:4000", time.Minute},
		"file":                 {[]string{"--config", file, "--tls-require-ready=2m"}, modeACME, "file.example", "https://file.example", 2 * time.Minute},
		"names by flags":       {[]string{"--config", file, "--acme-domains=a.example", "--acme-domains=b.example"}, modeACME, "a.example b.example", "https://a.example", 5 * time.Second},
		"another mode by flag": {[]string{"--config", file, "--tls-mode=selfsigned", "--site-url=https://dev.test:8443"}, modeSelfSigned, "localhost 127.0.0.1 ::1 dev.test", "https://localhost:4000", 5 * time.Second},
		"names in other forms": {[]string{"--config", file, "--acme-domains=BÜCHER.example.", "--acme-domains=[2001:DB8::1]", "--acme-domains=::ffff:192.0.2.1"}, modeACME, "xn--bcher-kva.example 2001:db8::1 192.0.2.1", "https://xn--bcher-kva.example", 5 * time.Second},
		"a site in another":    {[]string{"--tls-mode=selfsigned", "--site-url=https://Bücher.example.:8443"}, modeSelfSigned, "localhost 127.0.0.1 ::1 xn--bcher-kva.example", "https://localhost:4000", 5 * time.Second},
		"an address":           {[]string{"--config", file, "--acme-domains=::1"}, modeACME, "::1", "https://[::1]", 5 * time.Second},
	} {
		if name == "nothing" || name == "off" {
			t.Setenv("BEDPLATE_TLS_REQUIRE_READY", "")
			tt.ready = 0
		} else {
			t.Setenv("BEDPLATE_TLS_REQUIRE_READY", "5s")
		}
		conf, err := settingsOf(t, append([]string{"--data-dir", data}, tt.args...)...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if conf.TLS.Mode != tt.mode || strings.Join(conf.managedNames(), " ") != tt.names || conf.TLS.RequireReady != tt.ready {
			t.Errorf("%s: %s of %q within %s, want %+v", name, conf.TLS.Mode, conf.managedNames(), conf.TLS.RequireReady, tt)
		}
		if got := conf.publicURL("http://localhost:4000"); got != tt.url {
			t.Errorf("%s: %s, want %s", name, got, tt.url)
		}
	}
}

// A pair where it is looked for switches HTTPS on, one half of it is a mistake.
func TestDefaultPair(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		remove, args string
		mode         tlsMode
		want         string // of the error
	}{
		"both":          {"", "", modeFiles, ""},
		"both, off":     {"", "--tls-mode=off", modeOff, ""},
		"neither":       {"cert.pem key.pem", "", modeOff, ""},
		"no key":        {"key.pem", "", "", "no key.pem beside it"},
		"no cert":       {"cert.pem", "", "", "no cert.pem beside it"},
		"no key, off":   {"key.pem", "--tls-mode=off", modeOff, ""},
		"no key, files": {"key.pem", "--tls-mode=files", "", "key.pem"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			certs := filepath.Join(data, "secrets", "certs")
			newAuthority(t, "one").issue(t, certs, "localhost")
			for _, file := range strings.Fields(tt.remove) {
				if err := os.Remove(filepath.Join(certs, file)); err != nil {
					t.Fatal(err)
				}
			}
			conf, err := settingsOf(t, append([]string{"--data-dir", data}, strings.Fields(tt.args)...)...)
			switch {
			case tt.want != "":
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want %q", err, tt.want)
				}
			case err != nil || conf.TLS.Mode != tt.mode:
				t.Errorf("%v, %v, want mode %s", conf, err, tt.mode)
			}
		})
	}
}

package tlsauto_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

const fileHost = "files.example"

// writeFile gives a file that was there a later time: the clock of some disks stands still for milliseconds.
func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	before, err := os.Stat(path)
	was := err == nil
	noError(t, os.WriteFile(path, data, 0o600))
	if was {
		noError(t, os.Chtimes(path, time.Time{}, before.ModTime().Add(time.Second)))
	}
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// filesIn are the pair of files in a directory.
func filesIn(dir string) tlsauto.Files {
	return tlsauto.Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

func writePair(t testing.TB, f tlsauto.Files, pair testPair) {
	t.Helper()
	writeFile(t, f.Cert, pair.cert)
	writeFile(t, f.Key, pair.key)
}

// replacements are the ways in which programs put a pair in the place of another. Each is called for
// the first pair, too, and then with n = 1, 2, ...
var replacements = map[string]func(t *testing.T, dir string, n int, pair testPair) tlsauto.Files{
	"overwrite": func(t *testing.T, dir string, _ int, pair testPair) tlsauto.Files {
		writePair(t, filesIn(dir), pair)
		return filesIn(dir)
	},
	"rename over": func(t *testing.T, dir string, _ int, pair testPair) tlsauto.Files {
		next := tlsauto.Files{Cert: filepath.Join(dir, "new-cert"), Key: filepath.Join(dir, "new-key")}
		writePair(t, next, pair)
		noError(t, os.Rename(next.Cert, filesIn(dir).Cert))
		noError(t, os.Rename(next.Key, filesIn(dir).Key))
		return filesIn(dir)
	},
	// As Kubernetes does it: the files are links through ..data, a link to the current directory.
	"data link": func(t *testing.T, dir string, n int, pair testPair) tlsauto.Files {
		version := fmt.Sprintf("..version%d", n)
		noError(t, os.Mkdir(filepath.Join(dir, version), 0o700))
		writePair(t, filesIn(filepath.Join(dir, version)), pair)
		noError(t, os.Symlink(version, filepath.Join(dir, "..data_tmp")))
		noError(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		if n == 0 {
			noError(t, os.Symlink("..data/cert.pem", filesIn(dir).Cert))
			noError(t, os.Symlink("..data/key.pem", filesIn(dir).Key))
		} else {
			noError(t, os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..version%d", n-1))))
		}
		return filesIn(dir)
	},
	// As certbot does it: links in live, each of which is removed and made again, to files in archive.
	"live links": func(t *testing.T, dir string, n int, pair testPair) tlsauto.Files {
		live := filesIn(filepath.Join(dir, "live"))
		noError(t, os.MkdirAll(filepath.Join(dir, "live"), 0o700))
		noError(t, os.MkdirAll(filepath.Join(dir, "archive"), 0o700))
		for path, data := range map[string][]byte{live.Key: pair.key, live.Cert: pair.cert} {
			archived := fmt.Sprintf("../archive/%d-%s", n, filepath.Base(path))
			writeFile(t, filepath.Join(dir, "live", archived), data)
			if n > 0 {
				noError(t, os.Remove(path))
			}
			noError(t, os.Symlink(archived, path))
		}
		return live
	},
}

func TestFilesReplaced(t *testing.T) {
	t.Parallel()
	const swaps = 6
	ca := newTestCA(t, "files")
	for name, replace := range replacements {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			files := replace(t, dir, 0, ca.issue(t, nil, fileHost))
			m, _ := runManager(t, tlsauto.Config{Files: []tlsauto.Files{files}})
			crowd := startCrowd(t, 4, serveTLS(t, m.TLSConfig()), &tls.Config{RootCAs: ca.pool(), ServerName: fileHost})
			for n := range swaps {
				pair := ca.issue(t, nil, fileHost)
				replace(t, dir, n+1, pair)
				crowd.await(t, pair.serial())
			}
			handshakes := crowd.stop()
			if handshakes < swaps {
				t.Errorf("%d handshakes, want %d or more", handshakes, swaps)
			}
			if file := m.Status().Certificates[0].File; file.Reloads < swaps || file.LastError != "" {
				t.Errorf("after %d swaps the status is %+v", swaps, *file)
			}
			t.Logf("%d handshakes", handshakes)
		})
	}
}

// A crowd is clients that make one connection after the other.
type crowd struct {
	clients    sync.WaitGroup
	stopped    atomic.Bool
	handshakes atomic.Int64
	serials    chan string // of certificates that are served
}

func startCrowd(t *testing.T, size int, address string, config *tls.Config) *crowd {
	t.Helper()
	c := &crowd{serials: make(chan string, 1)}
	for range size {
		c.clients.Go(func() {
			for !c.stopped.Load() {
				state, err := greet(address, config)
				if err != nil {
					t.Error(err)
					return
				}
				c.handshakes.Add(1)
				select {
				case c.serials <- state.PeerCertificates[0].SerialNumber.Text(16):
				default:
				}
			}
		})
	}
	t.Cleanup(func() { c.stop() })
	return c
}

// await waits until clients get a certificate, and have made some more connections.
func (c *crowd) await(t *testing.T, serial string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	enough := c.handshakes.Load() + 25
	for {
		select {
		case got := <-c.serials:
			if got == serial && c.handshakes.Load() >= enough {
				return
			}
		case <-deadline.C:
			t.Fatal("a new certificate is not served")
		}
	}
}

func (c *crowd) stop() int64 {
	c.stopped.Store(true)
	c.clients.Wait()
	return c.handshakes.Load()
}

// spoilers make a good pair of files one that is refused.
func spoilers(t testing.TB, ca *testCA) map[string]struct {
	spoil func(t *testing.T, f tlsauto.Files)
	want  string // in the error
} {
	type spoiler = struct {
		spoil func(t *testing.T, f tlsauto.Files)
		want  string
	}
	put := func(pair func(t *testing.T) testPair, want string) spoiler {
		return spoiler{func(t *testing.T, f tlsauto.Files) { writePair(t, f, pair(t)) }, want}
	}
	changed := func(change func(p *testPair), want string) spoiler {
		return put(func(t *testing.T) testPair {
			pair := ca.issue(t, nil, fileHost)
			change(&pair)
			return pair
		}, want)
	}
	valid := func(from, until time.Duration, want string) spoiler {
		return put(func(t *testing.T) testPair { return ca.issue(t, between(from, until), fileHost) }, want)
	}
	block := func(kind string) []byte {
		return []byte("-----BEGIN " + kind + "-----\nU0VDUkVU\n-----END " + kind + "-----\n")
	}
	return map[string]spoiler{
		"garbage certificate": changed(func(p *testPair) { p.cert = []byte("garbage") }, "cert.pem: there is no certificate in it"),
		"empty certificate":   changed(func(p *testPair) { p.cert = nil }, "there is no certificate in it"),
		"half a certificate":  changed(func(p *testPair) { p.cert = p.cert[:len(p.cert)/4] }, "a certificate in it is damaged"),
		"damaged certificate": changed(func(p *testPair) { p.cert = block("CERTIFICATE") }, "certificate 1: x509"),
		"half a chain":        changed(func(p *testPair) { p.cert = p.cert[:len(p.cert)-100] }, "a certificate in it is damaged"),
		"damaged issuer":      changed(func(p *testPair) { p.cert = append(p.cert, block("CERTIFICATE")...) }, "certificate 3: x509"),
		"garbage key":         changed(func(p *testPair) { p.key = []byte("SECRET") }, "key.pem: there is no private key in it"),
		"key of some kind":    changed(func(p *testPair) { p.key = block("SECRET") }, "there is no private key in it"),
		"damaged key":         changed(func(p *testPair) { p.key = block("PRIVATE KEY") }, "failed to parse private key"),
		"encrypted key":       changed(func(p *testPair) { p.key = block("ENCRYPTED PRIVATE KEY") }, "the private key is encrypted"),
		"switched":            changed(func(p *testPair) { p.cert, p.key = p.key, p.cert }, "cert.pem: there is no certificate in it"),
		"foreign key":         changed(func(p *testPair) { p.key = ca.issue(t, nil, fileHost).key }, "private key does not match public key"),
		"too large":           changed(func(p *testPair) { p.cert = make([]byte, 1<<20+1) }, "cert.pem: larger than 1 MiB"),
		"too large key":       changed(func(p *testPair) { p.key = make([]byte, 1<<20+1) }, "key.pem: larger than 1 MiB"),
		"expired":             valid(-2*time.Hour, -time.Hour, "the certificate has expired at "),
		"not valid yet":       valid(time.Hour, 2*time.Hour, "the certificate is not valid before "),
		"no certificate file": {func(t *testing.T, f tlsauto.Files) { noError(t, os.Remove(f.Cert)) }, "cert.pem: no such file"},
		"no key file":         {func(t *testing.T, f tlsauto.Files) { noError(t, os.Remove(f.Key)) }, "key.pem: no such file"},
		"directory": {func(t *testing.T, f tlsauto.Files) {
			noError(t, os.Remove(f.Key))
			noError(t, os.Mkdir(f.Key, 0o700))
		}, "key.pem: not a regular file"},
		"link to nothing": {func(t *testing.T, f tlsauto.Files) {
			noError(t, os.Remove(f.Key))
			noError(t, os.Symlink("nothing", f.Key))
		}, "key.pem: no such file"},
		"link to a device": {func(t *testing.T, f tlsauto.Files) {
			noError(t, os.Remove(f.Cert))
			noError(t, os.Symlink(os.DevNull, f.Cert))
		}, "cert.pem: not a regular file"},
		"unreadable": {func(t *testing.T, f tlsauto.Files) {
			if os.Geteuid() == 0 || runtime.GOOS == "windows" {
				t.Skip("this user may read everything")
			}
			noError(t, os.Chmod(f.Key, 0))
		}, "key.pem: permission denied"},
	}
}

func TestFilesRefused(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "files")
	for name, tt := range spoilers(t, ca) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testRefused(t, ca, tt.spoil, tt.want)
		})
	}
}

// testRefused spoils a pair: the one before must stay in service, and there is an event that says why.
// A good pair is taken then.
func testRefused(t *testing.T, ca *testCA, spoil func(t *testing.T, f tlsauto.Files), want string) {
	f, good := filesIn(t.TempDir()), ca.issue(t, nil, fileHost)
	writePair(t, f, good)
	m, events := runManager(t, tlsauto.Config{Files: []tlsauto.Files{f}})
	spoil(t, f)

	e := events.awaitRefusal(t, want)
	if strings.Contains(e.Err.Error(), "SECRET") || strings.Contains(e.Err.Error(), "U0VDUkVU") {
		t.Errorf("something of the key is in the error: %v", e.Err)
	}
	if len(e.Names) != 1 || e.Names[0] != fileHost || e.Issuer != f.Cert || !e.NotAfter.Equal(good.leaf.NotAfter) {
		t.Errorf("the event is %+v, want one for the certificate that is served", e)
	}
	s := m.Status().Certificates[0]
	if s.Serial != good.serial() || s.State != tlsauto.Trusted || s.File.Failures == 0 || s.File.LastError != e.Err.Error() {
		t.Errorf("the status is %+v, %+v", s, *s.File)
	}
	if got := servedSerial(t, m); got != good.serial() {
		t.Errorf("%s is served, want %s", got, good.serial())
	}

	next := ca.issue(t, nil, fileHost)
	noError(t, os.RemoveAll(f.Cert))
	noError(t, os.RemoveAll(f.Key))
	writePair(t, f, next)
	events.await(t, tlsauto.Reloaded, 1)
	if s := m.Status().Certificates[0]; s.Serial != next.serial() || s.File.LastError != "" || s.File.Reloads != 1 {
		t.Errorf("the status is %+v, %+v", s, *s.File)
	}
	if got := servedSerial(t, m); got != next.serial() {
		t.Errorf("%s is served, want %s", got, next.serial())
	}
}

// servedSerial is the serial number of what a client gets.
func servedSerial(t *testing.T, m *tlsauto.Manager) string {
	t.Helper()
	cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: fileHost})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.Text(16)
}

func TestFilesRefusedAtFirst(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "files")
	var files []tlsauto.Files
	var wants []string
	for name, tt := range spoilers(t, ca) {
		if name == "expired" || name == "not valid yet" || name == "unreadable" {
			continue
		}
		f := filesIn(t.TempDir())
		writePair(t, f, ca.issue(t, nil, fileHost))
		tt.spoil(t, f)
		files = append(files, f)
		wants = append(wants, tt.want)
	}
	_, err := tlsauto.New(tlsauto.Config{Files: files})
	if err == nil {
		t.Fatal("New takes files that are damaged")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(wants) {
		t.Fatalf("%d mistakes, want %d: %v", len(lines), len(wants), err)
	}
	for i, want := range wants {
		place := fmt.Sprintf("Files[%d]: ", i)
		if !strings.Contains(lines[i], place) || !strings.Contains(lines[i], want) || !strings.Contains(lines[i], filepath.Dir(files[i].Cert)) {
			t.Errorf("mistake %d is %q, want %q and %q in it", i, lines[i], place, want)
		}
	}
}

func TestFilesReload(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "files")
	f := filesIn(t.TempDir())
	first := ca.issue(t, nil, fileHost)
	first.cert = certPEM(first.leaf)
	writePair(t, f, first)
	m, events := runManager(t, tlsauto.Config{Files: []tlsauto.Files{f}, FilesInterval: time.Hour})
	events.await(t, tlsauto.Doubtful, 1) // the look at the start is over
	next := ca.issue(t, nil, fileHost)
	writePair(t, f, next)
	m.Reload()
	events.await(t, tlsauto.Reloaded, 1)
	if got := servedSerial(t, m); got != next.serial() {
		t.Errorf("%s is served, want %s", got, next.serial())
	}
}

func TestFilesSeveral(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "files")
	files := []tlsauto.Files{filesIn(t.TempDir()), filesIn(t.TempDir())}
	writePair(t, files[0], ca.issue(t, nil, "a.example"))
	writePair(t, files[1], ca.issue(t, nil, "b.example", "*.b.example"))
	m, events := runManager(t, tlsauto.Config{Files: files})
	address := serveTLS(t, m.TLSConfig())

	next := ca.issue(t, nil, "b.example", "*.b.example", "c.example")
	writePair(t, files[1], next)
	if e := events.await(t, tlsauto.Reloaded, 1); e.Issuer != files[1].Cert || len(e.Names) != 3 {
		t.Errorf("the event is %+v, want one for the second pair", e)
	}
	for _, name := range []string{"a.example", "b.example", "x.b.example", "c.example"} {
		state, err := greet(address, &tls.Config{RootCAs: ca.pool(), ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if isNext := state.PeerCertificates[0].Equal(next.leaf); isNext != (name != "a.example") {
			t.Errorf("%s: the new certificate is served: %t", name, isNext)
		}
	}
	all := m.Status().Certificates
	if len(all) != 2 || all[0].File.Path != files[0].Cert || all[0].File.Reloads != 0 || all[1].File.Reloads != 1 {
		t.Errorf("the status is %+v", all)
	}
}

func TestFilesDoubtful(t *testing.T) {
	t.Parallel()
	root := newTestCA(t, "root")
	template := x509.Certificate{
		Subject:               pkix.Name{CommonName: "middle"},
		DNSNames:              []string{fileHost},
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	middle := &testCA{key: newTestKey(t)}
	middle.cert = root.sign(t, middle.key, &template)
	alone := &testCA{key: newTestKey(t)}
	alone.cert = alone.sign(t, alone.key, &template)
	old := &testCA{key: newTestKey(t)}
	between(-2*time.Hour, -time.Hour)(&template)
	old.cert = root.sign(t, old.key, &template)

	good := root.issue(t, nil, fileHost)
	// below has a leaf of middle and these above it.
	below := func(chain ...*x509.Certificate) testPair {
		key := newTestKey(t)
		leaf := middle.sign(t, key, &x509.Certificate{DNSNames: []string{fileHost}})
		return newTestPair(t, key, append([]*x509.Certificate{leaf}, chain...)...)
	}
	tests := map[string]struct {
		pair testPair
		mode os.FileMode
		want []string
	}{
		"good":           {pair: good, mode: 0o640},
		"chain":          {pair: below(middle.cert)},
		"whole chain":    {pair: below(middle.cert, root.cert)},
		"no issuer":      {pair: below(), want: []string{"the certificate of its issuer is missing"}},
		"wrong order":    {pair: below(root.cert, middle.cert), want: []string{"certificate 2 has not issued the one before it"}},
		"expired issuer": {pair: old.issue(t, nil, fileHost), want: []string{"certificate 2 has expired on"}},
		"self-signed":    {pair: newTestPair(t, alone.key, alone.cert), want: []string{"the certificate is self-signed"}},
		"no names":       {pair: root.issue(t, nil), want: []string{"no names of servers", "for the default name"}},
		"other name":     {pair: root.issue(t, nil, "other.example"), want: []string{"for the default name " + fileHost}},
		"open key":       {pair: good, mode: 0o644, want: []string{"key.pem: its mode is 0644"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := filesIn(t.TempDir())
			writePair(t, f, tt.pair)
			if tt.mode != 0 {
				noError(t, os.Chmod(f.Key, tt.mode))
			}
			_, events := runManager(t, tlsauto.Config{Files: []tlsauto.Files{f}, DefaultName: fileHost})
			if len(tt.want) > 0 {
				events.await(t, tlsauto.Doubtful, len(tt.want))
			}
			noError(t, os.Chmod(f.Key, 0o600))
			writePair(t, f, root.issue(t, nil, fileHost, "other.example"))
			events.await(t, tlsauto.Reloaded, 1)

			got := events.of(tlsauto.Doubtful)
			if len(got) != len(tt.want) {
				t.Fatalf("the doubts are %v, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				if !strings.Contains(got[i].Err.Error(), want) || got[i].Issuer != f.Cert {
					t.Errorf("doubt %d is %v of %s, want %q in it", i, got[i].Err, got[i].Issuer, want)
				}
			}
		})
	}
}

// A certificate that has fewer names than the one before is served, with a word.
func TestFilesLoseName(t *testing.T) {
	t.Parallel()
	ca := newTestCA(t, "files")
	f := filesIn(t.TempDir())
	writePair(t, f, ca.issue(t, nil, fileHost, "other.example"))
	m, events := runManager(t, tlsauto.Config{Files: []tlsauto.Files{f}})
	next := ca.issue(t, nil, fileHost)
	writePair(t, f, next)
	e := events.await(t, tlsauto.Doubtful, 1)
	if want := "there is no certificate for other.example any more"; e.Err.Error() != want {
		t.Errorf("the doubt is %v, want %q", e.Err, want)
	}
	if got := servedSerial(t, m); got != next.serial() {
		t.Errorf("%s is served, want %s", got, next.serial())
	}
}

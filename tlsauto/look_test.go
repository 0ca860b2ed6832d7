package tlsauto

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A looker makes the looks at one pair of files by hand, at a time of its own.
type looker struct {
	m      *Manager
	files  Files
	now    time.Time
	events []Event
	log    strings.Builder
}

// newLooker begins with a certificate that is valid for so many hours.
func newLooker(t *testing.T, from, until int) *looker {
	t.Helper()
	dir := t.TempDir()
	l := &looker{files: Files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}}
	l.now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	l.write(t, from, until)
	m, err := New(Config{
		Files:  []Files{l.files},
		Events: func(e Event) { l.events = append(l.events, e) },
		Logger: slog.New(slog.NewTextHandler(&l.log, nil)),
		Now:    func() time.Time { return l.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	l.m = m
	return l
}

// write replaces the pair by one that is valid from and until so many hours from now.
func (l *looker) write(t *testing.T, from, until int) {
	t.Helper()
	cert, key := lookPair(t, l.now.Add(time.Duration(from)*time.Hour), l.now.Add(time.Duration(until)*time.Hour))
	lookWrite(t, l.files.Cert, cert)
	lookWrite(t, l.files.Key, key)
}

// look looks, again if that is due soon, and returns the kinds of events that come of it. Doubts are the
// subject of other tests.
func (l *looker) look() string {
	l.events = nil
	for l.lookOnce() {
	}
	return l.kinds()
}

func (l *looker) lookOnce() (soon bool) { return l.m.files.look(l.m.files.all[0]) }

func (l *looker) kinds() string {
	var kinds []string
	for _, e := range l.events {
		if e.Kind != Doubtful {
			kinds = append(kinds, string(e.Kind))
		}
	}
	return strings.Join(kinds, " ")
}

func (l *looker) want(t *testing.T, after, want string) {
	t.Helper()
	if got := l.look(); got != want {
		t.Errorf("after %s the events are %q, want %q", after, got, want)
	}
}

// lookWrite gives a file that was there a later time: the clock of some disks stands still for milliseconds.
func lookWrite(t *testing.T, path string, data []byte) {
	t.Helper()
	before, statErr := os.Stat(path)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if statErr != nil {
		return // there was none
	}
	if err := os.Chtimes(path, time.Time{}, before.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
}

func TestLookHalfReplaced(t *testing.T) {
	t.Parallel()
	l := newLooker(t, -1, 90)
	before := l.m.files.pairs()[0]
	l.want(t, "nothing", "")

	cert, key := lookPair(t, l.now, l.now.Add(90*time.Hour))
	lookWrite(t, l.files.Key, key)
	l.want(t, "the key alone", "")
	if l.m.files.pairs()[0] != before {
		t.Error("a key without its certificate is served")
	}
	lookWrite(t, l.files.Cert, cert)
	l.want(t, "the certificate", "reloaded")
	l.want(t, "nothing", "")

	lookWrite(t, l.files.Key, []byte("half a key"))
	l.want(t, "half a key", "")
	l.want(t, "nothing", "reload_failed")
	l.want(t, "nothing", "")
	lookWrite(t, l.files.Key, []byte("the same mistake"))
	l.want(t, "the same mistake", "")
	lookWrite(t, l.files.Cert, []byte("another mistake"))
	l.want(t, "another mistake", "reload_failed")
	lookWrite(t, l.files.Cert, cert)
	lookWrite(t, l.files.Key, key)
	l.want(t, "the good pair", "reloaded")
	if s := l.m.files.status()[0].File; s.Reloads != 2 || s.Failures != 2 || s.LastError != "" {
		t.Errorf("the status is %+v", *s)
	}
}

// Programs that write the same again change nothing.
func TestLookSame(t *testing.T) {
	t.Parallel()
	l := newLooker(t, -1, 90)
	l.look()
	cert, err := os.ReadFile(l.files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(l.files.Cert); err != nil {
		t.Fatal(err)
	}
	lookWrite(t, l.files.Cert, cert)
	l.want(t, "the same certificate", "")
	if err := os.Chmod(l.files.Key, 0o400); err != nil {
		t.Fatal(err)
	}
	l.want(t, "another mode", "")
	if s := l.m.files.status()[0].File; s.Reloads != 0 {
		t.Errorf("%d reloads of the same", s.Reloads)
	}
}

// A change within the resolution of the files' times leaves nothing else to see it by.
func TestLookSameTime(t *testing.T) {
	t.Parallel()
	l := newLooker(t, -1, 90)
	l.want(t, "nothing", "")
	l.want(t, "nothing", "")
	stamp := l.now
	cert, key := lookPair(t, l.now, l.now.Add(90*time.Hour))
	pad := func(b []byte) []byte { return append(b, strings.Repeat("\n", 4096-len(b))...) }
	put := func(cert, key []byte) {
		for path, data := range map[string][]byte{l.files.Cert: pad(cert), l.files.Key: pad(key)} {
			lookWrite(t, path, data)
			if err := os.Chtimes(path, stamp, stamp); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(cert, key)
	if !l.lookOnce() {
		t.Error("a change is not to be looked at again")
	}
	put(lookPair(t, l.now, l.now.Add(90*time.Hour)))
	if !l.lookOnce() {
		t.Error("a change at the same time is not seen")
	}
	if got := l.kinds(); got != "" {
		t.Errorf("while it changes: %q", got)
	}
	l.want(t, "a change at the same time", "reloaded")
	l.want(t, "nothing", "")
	for _, path := range []string{l.files.Cert, l.files.Key} {
		// Not removed, so that the new file cannot have the identity of the old one.
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
	}
	put(lookPair(t, l.now, l.now.Add(90*time.Hour)))
	l.want(t, "other files of the same size and time", "reloaded")
}

func TestLookNotYetValid(t *testing.T) {
	t.Parallel()
	l := newLooker(t, -1, 90)
	before := l.m.files.pairs()[0]
	l.write(t, 2, 90)
	l.want(t, "a certificate for later", "")
	l.want(t, "nothing", "reload_failed")
	if next := l.events[len(l.events)-1].Next; !next.Equal(l.now.Add(2 * time.Hour)) {
		t.Errorf("the next attempt is at %s", next)
	}
	l.now = l.now.Add(2*time.Hour - time.Second)
	l.want(t, "some time", "")
	if l.m.files.pairs()[0] != before {
		t.Error("it is served before its time")
	}
	l.now = l.now.Add(time.Second)
	l.want(t, "its time has come", "reloaded")
	if l.m.files.pairs()[0] == before {
		t.Error("it is not served when its time has come")
	}
}

func TestLookNotYetValidAtFirst(t *testing.T) {
	t.Parallel()
	l := newLooker(t, 1, 90)
	if !strings.Contains(l.log.String(), "level=ERROR") || !strings.Contains(l.log.String(), "not valid before") {
		t.Errorf("the log has no error: %s", l.log.String())
	}
	l.write(t, 2, 90)
	l.want(t, "another for later", "reloaded")
	l.write(t, -1, 90)
	l.want(t, "one for now", "reloaded")
}

func TestLookExpired(t *testing.T) {
	t.Parallel()
	l := newLooker(t, -90, -1)
	if !strings.Contains(l.log.String(), "level=ERROR") || !strings.Contains(l.log.String(), "has expired") {
		t.Errorf("the log has no error: %s", l.log.String())
	}
	if s := l.m.files.status()[0]; s.State != Expired {
		t.Errorf("the state is %s, want %s", s.State, Expired)
	}
	l.want(t, "the start", "expiring")
	l.write(t, -80, -1)
	l.want(t, "another that has expired", "reloaded expiring")
	l.write(t, -1, 90)
	l.want(t, "a good one", "reloaded")
	if s := l.m.files.status()[0]; s.State != Trusted {
		t.Errorf("the state is %s, want %s", s.State, Trusted)
	}
	l.write(t, -80, -1)
	l.want(t, "an expired one after a good one", "")
	l.want(t, "nothing", "reload_failed")
	l.now = l.now.Add(91 * time.Hour)
	l.want(t, "the good one has expired, too", "reloaded expiring")
}

func TestLookExpiring(t *testing.T) {
	t.Parallel()
	l := newLooker(t, 0, 12) // a sixth is two hours
	for _, step := range []struct {
		after time.Duration // since the step before
		want  string
	}{
		{0, ""},
		{10 * time.Hour, ""},
		{time.Second, "expiring"},
		{time.Second, ""},
		{59 * time.Minute, ""},
		{time.Minute, "expiring"},
		{59 * time.Minute, ""},
		{time.Minute, "expiring"}, // it has expired
		{59 * time.Minute, ""},
		{time.Minute, "expiring"},
		{-30 * time.Minute, "expiring"}, // the clock was wrong
		{time.Minute, ""},
	} {
		l.now = l.now.Add(step.after)
		l.want(t, step.after.String(), step.want)
	}
	l.write(t, 0, 12)
	l.want(t, "a new one", "reloaded")
}

// lookPair makes the contents of a pair of files.
func lookPair(t *testing.T, from, until time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{"files.example"}, NotBefore: from, NotAfter: until}
	cert, err = x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	key, err = x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	return block("CERTIFICATE", cert), block("PRIVATE KEY", key)
}

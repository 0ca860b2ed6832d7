package tlsauto

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/acme"
)

// boardStore counts what is asked of a store, and lets tests get in the way.
type boardStore struct {
	Store
	get func(ctx context.Context, key string) error // an error is returned instead
	put func(ctx context.Context, key string) error

	mu   sync.Mutex
	gets []string // keys
	all  []string // keys of all calls
}

func newBoardStore() *boardStore { return &boardStore{Store: NewMemoryStore()} }

func (s *boardStore) note(key string, get bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, key)
	if get {
		s.gets = append(s.gets, key)
	}
}

func (s *boardStore) reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.gets)
}

func (s *boardStore) Get(ctx context.Context, key string) ([]byte, error) {
	s.note(key, true)
	if s.get != nil {
		if err := s.get(ctx, key); err != nil {
			return nil, err
		}
	}
	return s.Store.Get(ctx, key)
}

func (s *boardStore) Put(ctx context.Context, key string, value []byte) error {
	s.note(key, false)
	if s.put != nil {
		if err := s.put(ctx, key); err != nil {
			return err
		}
	}
	return s.Store.Put(ctx, key, value)
}

func (s *boardStore) Delete(ctx context.Context, key string) error {
	s.note(key, false)
	if s.put != nil {
		if err := s.put(ctx, key); err != nil {
			return err
		}
	}
	return s.Store.Delete(ctx, key)
}

// testBoard is that of a server with the names example.com, b.example.com ... whose time is time.Now.
func testBoard(store Store, log *bytes.Buffer) *board {
	if log == nil {
		log = &bytes.Buffer{}
	}
	ours := func(_ context.Context, name string) HandshakeError {
		if name == "example.com" || strings.HasSuffix(name, ".example.com") {
			return ""
		}
		return UnknownChallenge
	}
	return newBoard(store, ours, time.Now, slog.New(slog.NewTextHandler(log, nil)))
}

func challengeCert(t testing.TB, name, token string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := (&acme.Client{Key: key}).TLSALPN01ChallengeCert(token, name)
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

const (
	testToken     = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
	testKeyAuth   = testToken + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"
	otherToken    = "abcdefghijklmnopqrstuv"
	waitForMemory = lookupMemory + time.Millisecond
)

// Two processes on one store give each other's answers.
func TestBoardShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore()
		mine, other := testBoard(store, nil), testBoard(store, nil)
		cert := challengeCert(t, "example.com", testToken)

		removeHTTP, err := mine.HTTP01(t.Context(), testToken, []byte(testKeyAuth))
		if err != nil {
			t.Fatal(err)
		}
		removeTLS, err := mine.TLSALPN01(t.Context(), "Example.com.", cert)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range []*board{mine, other} {
			if got, reason := b.keyAuthorization(t.Context(), "example.com", testToken); string(got) != testKeyAuth {
				t.Errorf("HTTP-01: %q, %s", got, reason)
			}
			for _, name := range []string{"example.com", "EXAMPLE.com", "example.com."} {
				got, reason := b.certificate(t.Context(), name)
				if got == nil || !bytes.Equal(got.Certificate[0], cert.Certificate[0]) || got.PrivateKey == nil {
					t.Errorf("TLS-ALPN-01 for %s: %v, %s", name, got, reason)
				}
			}
			for _, host := range []string{"", "other.example"} {
				if got, _ := b.keyAuthorization(t.Context(), host, testToken); got != nil {
					t.Errorf("HTTP-01 for host %q: %q", host, got)
				}
			}
			for _, name := range []string{"", "b.example.com", "other.example", "*.example.com"} {
				if got, reason := b.certificate(t.Context(), name); got != nil || reason != UnknownChallenge {
					t.Errorf("TLS-ALPN-01 for %q: %v, %q", name, got, reason)
				}
			}
		}
		removeHTTP()
		removeTLS()
		removeTLS()
		time.Sleep(waitForMemory)
		for _, b := range []*board{mine, other} {
			if got, reason := b.keyAuthorization(t.Context(), "example.com", testToken); got != nil || reason != UnknownChallenge {
				t.Errorf("HTTP-01 after remove: %q, %q", got, reason)
			}
			if got, reason := b.certificate(t.Context(), "example.com"); got != nil || reason != UnknownChallenge {
				t.Errorf("TLS-ALPN-01 after remove: %v, %q", got, reason)
			}
		}
		if n := len(store.(*memoryStore).values); n != 0 {
			t.Errorf("%d values are left in the store", n)
		}
	})
}

// A setting of the environment leaves Leaf out of the pairs that are parsed, for all programs.
func TestBoardWithoutLeaf(t *testing.T) { //nolint:paralleltest // the setting is that of the process
	t.Setenv("GODEBUG", "x509keypairleaf=0")
	store := NewMemoryStore()
	cert := challengeCert(t, "example.com", testToken)
	if _, err := testBoard(store, nil).TLSALPN01(t.Context(), "example.com", cert); err != nil {
		t.Fatal(err)
	}
	got, reason := testBoard(store, nil).certificate(t.Context(), "example.com")
	if got == nil || !bytes.Equal(got.Certificate[0], cert.Certificate[0]) {
		t.Errorf("%v, %s", got, reason)
	}
}

// The answers of a process that was killed are given no longer than ten minutes, and whoever sees one
// then deletes it.
func TestBoardLeftovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := NewMemoryStore()
		crashed, b := testBoard(store, nil), testBoard(store, nil)
		if _, err := crashed.HTTP01(t.Context(), testToken, []byte(testKeyAuth)); err != nil {
			t.Fatal(err)
		}
		if _, err := crashed.TLSALPN01(t.Context(), "example.com", challengeCert(t, "example.com", testToken)); err != nil {
			t.Fatal(err)
		}
		asked := func(want bool) {
			t.Helper()
			for _, b := range []*board{crashed, b} {
				value, _ := b.keyAuthorization(t.Context(), "example.com", testToken)
				cert, _ := b.certificate(t.Context(), "example.com")
				if (value != nil) != want || (cert != nil) != want {
					t.Errorf("answers %t and %t, want %t", value != nil, cert != nil, want)
				}
			}
		}
		time.Sleep(challengeLife - time.Millisecond)
		asked(true)
		time.Sleep(waitForMemory)
		asked(false)
		if n := len(store.(*memoryStore).values); n != 0 {
			t.Errorf("%d values are left in the store", n)
		}
		if _, err := crashed.HTTP01(t.Context(), testToken, []byte(testKeyAuth)); err != nil {
			t.Fatal(err)
		}
		if n := len(crashed.local); n != 1 {
			t.Errorf("%d answers are kept in memory, want 1", n)
		}
	})
}

func TestBoardRefuses(t *testing.T) {
	t.Parallel()
	store := newBoardStore()
	b := testBoard(store, nil)
	for _, token := range []string{"", "short", strings.Repeat("a", 21), strings.Repeat("a", 129), "../../../etc/passwd/aaaaaaaaaa", testToken + "=", testToken + "\n", "é" + testToken} {
		if _, err := b.HTTP01(t.Context(), token, []byte(token+".abc")); err == nil {
			t.Errorf("token %q is accepted", token)
		}
		if got, reason := b.keyAuthorization(t.Context(), "example.com", token); got != nil || reason != UnknownChallenge {
			t.Errorf("token %q: %q, %q", token, got, reason)
		}
	}
	for _, value := range []string{"", testToken, testToken + ".", testToken + ".<script>", otherToken + ".abc", testToken + "." + strings.Repeat("a", 129)} {
		if _, err := b.HTTP01(t.Context(), testToken, []byte(value)); err == nil {
			t.Errorf("answer %q is accepted", value)
		}
	}
	for _, name := range []string{"", "*.example.com", "a/b", strings.Repeat("a.", 130) + "b"} {
		if _, err := b.TLSALPN01(t.Context(), name, challengeCert(t, "example.com", testToken)); err == nil {
			t.Errorf("name %.40q is accepted", name)
		}
	}
	for _, cert := range []*tls.Certificate{nil, {}, {Certificate: [][]byte{{1}}}} {
		if _, err := b.TLSALPN01(t.Context(), "example.com", cert); err == nil {
			t.Errorf("certificate %v is accepted", cert)
		}
	}
	if len(store.all) != 0 {
		t.Errorf("the store was asked for %q", store.all)
	}
}

// What is in the store is not believed.
func TestBoardHostileStore(t *testing.T) {
	t.Parallel()
	ordinary, err := encodeChallenge(tableCert(t, "x", nil, "example.com"))
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Minute).Format(time.RFC3339)
	for _, value := range []string{
		"", "{", "null", "[]", `{"until":"x"}`, strings.Repeat("x", maxPosted+1),
		fmt.Sprintf(`{"until":%q}`, until),
		fmt.Sprintf(`{"until":%q,"tls":"AAAA"}`, until),
		string(mustJSON(t, &answer{Until: time.Now().Add(time.Minute), TLS: ordinary})),
		string(mustJSON(t, &answer{Until: time.Now().Add(time.Minute), HTTP: []byte("<script>alert(1)</script>")})),
		string(mustJSON(t, &answer{Until: time.Now().Add(time.Minute), HTTP: []byte(otherToken + ".abc")})),
	} {
		store := NewMemoryStore()
		b := testBoard(store, nil)
		for _, key := range []string{http01Key(testToken), tlsALPN01Key("example.com")} {
			if err := store.Put(t.Context(), key, []byte(value)); err != nil {
				t.Fatal(err)
			}
		}
		if got, reason := b.keyAuthorization(t.Context(), "example.com", testToken); got != nil || reason != UnknownChallenge {
			t.Errorf("%.60q: answers %q, %q", value, got, reason)
		}
		if got, reason := b.certificate(t.Context(), "example.com"); got != nil || reason != UnknownChallenge {
			t.Errorf("%.60q: answers %v, %q", value, got, reason)
		}
	}
}

// If the store fails this process still answers, and says so once.
func TestBoardStoreFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		store := newBoardStore()
		b := testBoard(store, &log)
		broken := errors.New("disk full")
		lines := func(want int) {
			t.Helper()
			if got := strings.Count(log.String(), "\n"); got != want || got > 0 && !strings.Contains(log.String(), "disk full") {
				t.Errorf("%d lines, want %d: %s", got, want, &log)
			}
			if strings.Contains(log.String(), "PRIVATE") || strings.Contains(log.String(), testToken) {
				t.Errorf("a secret in the log: %s", &log)
			}
		}
		store.put = func(context.Context, string) error { return broken }
		for range 3 {
			remove, err := b.HTTP01(t.Context(), testToken, []byte(testKeyAuth))
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := b.keyAuthorization(t.Context(), "example.com", testToken); string(got) != testKeyAuth {
				t.Errorf("answer %q", got)
			}
			remove()
		}
		lines(1)
		store.put = nil
		if _, err := b.HTTP01(t.Context(), testToken, []byte(testKeyAuth)); err != nil {
			t.Fatal(err)
		}
		store.get = func(context.Context, string) error { return broken }
		for range 3 {
			if got, reason := b.certificate(t.Context(), "example.com"); got != nil || reason != UnknownChallenge {
				t.Errorf("answer %v, %q", got, reason)
			}
			time.Sleep(waitForMemory)
		}
		lines(2)
	})
}

// A store that does not answer holds nobody up for longer than storeTimeout.
func TestBoardStoreHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBoardStore()
		b := testBoard(store, nil)
		hang := func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		store.put, store.get = hang, hang
		took := func(what string, do func()) {
			t.Helper()
			start := time.Now()
			if do(); time.Since(start) != storeTimeout {
				t.Errorf("%s took %v", what, time.Since(start))
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var remove func()
		took("HTTP01", func() { remove, _ = b.HTTP01(ctx, testToken, []byte(testKeyAuth)) })
		cancel()
		took("remove", remove)
		took("certificate", func() { b.certificate(t.Context(), "example.com") })
	})
}

// An answer that has taken the place of another stays when that is removed.
func TestBoardNewerAnswer(t *testing.T) {
	t.Parallel()
	store := NewMemoryStore()
	b := testBoard(store, nil)
	older, err := b.TLSALPN01(t.Context(), "example.com", challengeCert(t, "example.com", otherToken))
	if err != nil {
		t.Fatal(err)
	}
	cert := challengeCert(t, "example.com", testToken)
	if _, err := b.TLSALPN01(t.Context(), "example.com", cert); err != nil {
		t.Fatal(err)
	}
	older()
	for _, b := range []*board{b, testBoard(store, nil)} {
		if got, _ := b.certificate(t.Context(), "example.com"); got == nil || !bytes.Equal(got.Certificate[0], cert.Certificate[0]) {
			t.Errorf("answer %v", got)
		}
	}
}

// A flood does not reach the store: unknown names never, of the others only a few at the same time, and
// those who ask the same share the outcome.
func TestBoardFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBoardStore()
		b := testBoard(store, nil)
		for i := range 1000 {
			b.certificate(t.Context(), fmt.Sprintf("n%d.example.org", i))
			b.keyAuthorization(t.Context(), fmt.Sprintf("n%d.example.org", i), testToken)
			b.keyAuthorization(t.Context(), "example.com", "../../key")
		}
		if n := store.reads(); n != 0 {
			t.Errorf("%d reads for unknown names", n)
		}

		for range 1000 {
			b.certificate(t.Context(), "example.com")
		}
		if n := store.reads(); n != 1 {
			t.Errorf("%d reads for the same name, want 1", n)
		}
		time.Sleep(waitForMemory)

		release := make(chan struct{})
		store.get = func(context.Context, string) error { <-release; return nil }
		reasons := make([]HandshakeError, 100)
		var all sync.WaitGroup
		for i := range reasons {
			all.Go(func() { _, reasons[i] = b.certificate(t.Context(), fmt.Sprintf("n%d.example.com", i)) })
		}
		synctest.Wait()
		if n := store.reads() - 1; n != maxLookups {
			t.Errorf("%d reads at the same time, want %d", n, maxLookups)
		}
		// The client who asked first leaves, and one who only waits leaves, too: others get the answer.
		left, cancel := context.WithCancel(t.Context())
		cancel()
		busy := strings.TrimPrefix(store.gets[1], tlsALPN01Prefix)
		if _, reason := b.certificate(left, busy); reason != UnknownChallenge {
			t.Errorf("a client who left: %q", reason)
		}
		close(release)
		all.Wait()
		tooMany := 0
		for _, reason := range reasons {
			if reason == TooMany {
				tooMany++
			}
		}
		if tooMany != len(reasons)-maxLookups {
			t.Errorf("%d are too many, want %d", tooMany, len(reasons)-maxLookups)
		}

		store.get = nil
		for i := range 10 * maxRemembered {
			b.certificate(t.Context(), fmt.Sprintf("m%d.example.com", i))
		}
		if n := len(b.lookups); n > maxRemembered {
			t.Errorf("%d lookups are remembered", n)
		}
	})
}

// A client that leaves does not take the answer from those who ask the same.
func TestBoardLookupOutlivesItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := newBoardStore()
		if _, err := testBoard(store, nil).HTTP01(t.Context(), testToken, []byte(testKeyAuth)); err != nil {
			t.Fatal(err)
		}
		b := testBoard(store, nil)
		store.get = func(ctx context.Context, _ string) error {
			select {
			case <-time.After(time.Second):
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { b.keyAuthorization(first, "example.com", testToken) })
		synctest.Wait()
		all.Go(func() {
			if got, _ := b.keyAuthorization(t.Context(), "example.com", testToken); string(got) != testKeyAuth {
				t.Errorf("answer %q", got)
			}
		})
		synctest.Wait()
		leave()
		all.Wait()
	})
}

// Whatever is asked for, keys have the form that a Store promises, and are files without a directory.
func TestI6_BoardKeys(t *testing.T) {
	t.Parallel()
	store := newBoardStore()
	b := newBoard(store, func(context.Context, string) HandshakeError { return "" }, time.Now, slog.New(slog.DiscardHandler))
	long := strings.Repeat(strings.Repeat("a", 62)+".", 4) + "b" // 253 characters
	for _, name := range []string{"example.com", long, "../../key", "..", "a..b", "/etc/passwd", "con", "a\x00b", "::1", "[::1]", "1.2.3.4", "bücher.example", "a_b.example.com"} {
		b.certificate(t.Context(), name)
		b.keyAuthorization(t.Context(), name, testToken)
		b.keyAuthorization(t.Context(), "example.com", name)
	}
	b.keyAuthorization(t.Context(), "example.com", strings.Repeat("A", 128))
	valid := regexp.MustCompile(`^(http01\+[0-9a-f]{64}|tlsalpn01\+[a-z0-9_-][a-z0-9._-]{0,180})$`)
	for _, key := range store.all {
		if !valid.MatchString(key) || strings.Contains(key, "..") {
			t.Errorf("key %q", key)
		}
	}
	if !slices.Contains(store.all, "tlsalpn01+example.com") {
		t.Errorf("keys %q", store.all)
	}
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

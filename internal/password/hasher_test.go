package password_test

import (
	"context"
	"errors"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/bedplate/bedplate/internal/password"
)

// cheap parameters, for tests that are not about cost.
var cheap = password.Params{Memory: 64, Time: 1}

const (
	composed   = "caf\u00e9 au lait"  // NFC
	decomposed = "cafe\u0301 au lait" // NFD
)

func newHasher(t testing.TB, p password.Params, slots, queue int) *password.Hasher {
	t.Helper()
	h, err := password.NewHasher(p, slots, queue)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func hash(t testing.TB, h *password.Hasher, pw string) string {
	t.Helper()
	s, err := h.Hash(t.Context(), pw)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verify(t testing.TB, h *password.Hasher, stored, pw string) (ok, outdated bool) {
	t.Helper()
	ok, outdated, err := h.Verify(t.Context(), stored, pw)
	if err != nil {
		t.Fatal(err)
	}
	return ok, outdated
}

// Each hash fills its memory once per pass, in one allocation. So the bytes allocated tell how many
// hashes were computed, which the clock of a busy machine does not. Not parallel for that reason.
func TestVerifyDoesTheSameWorkForUnknownUsers(t *testing.T) {
	const memory = 8 << 10
	h := newHasher(t, password.Params{Memory: memory, Time: 1}, 0, 0)
	stored := hash(t, h, "correct horse")
	imported := hash(t, newHasher(t, cheap, 0, 0), "correct horse")

	hashes := func(stored, pw string) int {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		verify(t, h, stored, pw)
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		if rest := allocated % (memory << 10); allocated > memory<<10 && rest > 256<<10 {
			t.Errorf("%d bytes are allocated beside those of the hashes, for a password of %d", rest, len(pw))
		}
		return int(allocated / (memory << 10))
	}

	tests := []struct {
		name, password string
		want           int
	}{
		{"right or wrong", "wrong horse", 1},
		{"empty", "", 1},
		{"composed", composed, 1},
		{"decomposed", decomposed, 2},
		{"invalid UTF-8", "wrong \xff horse", 1},
		{"NUL", "correct horse\x00", 1},
		{"1 MB", strings.Repeat("a", 1<<20), 1},
	}
	for _, test := range tests {
		for name, stored := range map[string]string{
			"known":      stored,
			"unknown":    "",
			"unreadable": "!",
			"truncated":  stored[:len(stored)-20],
			"md5":        "$1$abcdefgh$G9P0yKEO5zzlnEqS3BsUn0",
		} {
			if got := hashes(stored, test.password); got != test.want {
				t.Errorf("%s password for a user of %s hash: %d hashes, want %d", test.name, name, got, test.want)
			}
		}
	}
	if got := hashes(stored, "correct horse"); got != 1 {
		t.Errorf("right password: %d hashes, want 1", got)
	}
	if got := hashes(imported, "wrong horse"); got != 0 {
		t.Errorf("wrong password for a cheaper hash: %d hashes' memory, want 0", got)
	}
}

func TestHashFormat(t *testing.T) {
	t.Parallel()
	h := newHasher(t, password.Params{}, 0, 0)
	a, b := hash(t, h, "secret123."), hash(t, h, "secret123.")
	format := regexp.MustCompile(`^\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`)
	if !format.MatchString(a) {
		t.Errorf("hash %q does not match %s", a, format)
	}
	if a == b {
		t.Error("two hashes have the same salt")
	}
	if ok, outdated := verify(t, h, a, "secret123."); !ok || outdated {
		t.Errorf("verify: %t, outdated %t", ok, outdated)
	}
	if ok, _ := verify(t, h, a, "Secret123."); ok {
		t.Error("a wrong password matches")
	}
}

func TestNewHasherRefuses(t *testing.T) {
	t.Parallel()
	_, err := password.NewHasher(password.Params{Memory: 8, Time: 17, Threads: 2}, -1, -1)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"memory of 8 KiB", "time of 17 passes", "slots must not", "queue must not"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not about %q", err, want)
		}
	}
	if _, err := password.NewHasher(password.Params{Memory: 1<<20 + 1}, 0, 0); err == nil {
		t.Error("more than 1 GiB is not refused")
	}
}

// The first are test vectors of the reference implementations.
func TestJ8_ImportedHashes(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap, 0, 0)
	const letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	tests := []struct {
		name, hash, password string
		ok, outdated         bool
	}{
		{"argon2id", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password", true, false},
		{"argon2id, two lanes", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password", true, false},
		{"argon2id, 64 MiB", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true, false},
		{"argon2id, wrong password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "Password", false, false},
		{"bcrypt 2a", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true, true},
		{"bcrypt 2b", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true, true},
		{"bcrypt 2y", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true, true},
		{"bcrypt 2x", "$2x$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", false, false},
		{"bcrypt, wrong password", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*V", false, false},
		{"bcrypt, password twice with NUL", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U\x00U*U", false, false},
		{"bcrypt, 72 bytes", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui", letters, true, true},
		{"bcrypt, 73 bytes", "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui", letters + "c", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if ok, outdated := verify(t, h, test.hash, test.password); ok != test.ok || outdated != test.outdated {
				t.Errorf("%t, outdated %t; want %t, outdated %t", ok, outdated, test.ok, test.outdated)
			}
		})
	}
}

func TestJ8_OutdatedOnlyIfWeaker(t *testing.T) {
	t.Parallel()
	const pw = "correct horse"
	h := newHasher(t, password.Params{Memory: 256, Time: 2}, 0, 0)
	tests := []struct {
		stored   password.Params
		outdated bool
	}{
		{password.Params{Memory: 256, Time: 2, Threads: 1}, false},
		{password.Params{Memory: 256, Time: 2, Threads: 4}, false},
		{password.Params{Memory: 256, Time: 1, Threads: 1}, true},
		{password.Params{Memory: 128, Time: 2, Threads: 1}, true},
		{password.Params{Memory: 256, Time: 3, Threads: 1}, false},
		{password.Params{Memory: 512, Time: 2, Threads: 1}, false},
		{password.Params{Memory: 1024, Time: 1, Threads: 1}, false},
		{password.Params{Memory: 300, Time: 1, Threads: 1}, true},
	}
	for _, test := range tests {
		stored := hash(t, newHasher(t, test.stored, 0, 0), pw)
		if ok, outdated := verify(t, h, stored, pw); !ok || outdated != test.outdated {
			t.Errorf("%+v: %t, outdated %t; want true, outdated %t", test.stored, ok, outdated, test.outdated)
		}
		if ok, outdated := verify(t, h, stored, "wrong"); ok || outdated {
			t.Errorf("%+v: %t, outdated %t for a wrong password", test.stored, ok, outdated)
		}
	}
}

// None of these may be understood: some would take hours or all memory, some match by chance.
func TestJ8_HostileHashes(t *testing.T) {
	t.Parallel()
	const salt, key = "c29tZXNhbHQ", "nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
	const bcryptTail = "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	if _, known := password.Reparse("$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + key); !known {
		t.Fatal("the hash that all others derive from is unknown")
	}
	for _, s := range []string{
		"", "$", "$argon2id$", "$argon2id$$$$", "$2a$", strings.Repeat("$", 60), strings.Repeat("a", 60),
		"$argon2id$v=19$m=1048577,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967295,t=1,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=4294967552,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=17,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=0,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2,p=0$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2,p=33$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2,p=257$" + salt + "$" + key,
		"$argon2id$v=19$m=0,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=-1,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$t=2,m=256,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2,p=1,x=1$" + salt + "$" + key,
		"$argon2id$v=16$m=256,t=2,p=1$" + salt + "$" + key,
		"$argon2id$m=256,t=2,p=1$" + salt + "$" + key,
		"$argon2i$v=19$m=256,t=2,p=1$" + salt + "$" + key,
		"$argon2d$v=19$m=256,t=2,p=1$" + salt + "$" + key,
		"$argon2id$v=19$m=256,t=2,p=1$$" + key,
		"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$",
		"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$nf65",
		"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + key + "=",
		"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + key + "$",
		"$argon2id$v=19$m=256,t=2,p=1$" + salt + "$" + strings.Repeat("a", 10000),
		"$2a$17$" + bcryptTail, "$2a$31$" + bcryptTail, "$2a$03$" + bcryptTail, "$2a$99$" + bcryptTail,
		"$2$05$" + bcryptTail + "a", "$3a$05$" + bcryptTail, "$2a$05$!" + bcryptTail[1:], "$2a$05." + bcryptTail,
		"$2a$05$" + bcryptTail + "a",
	} {
		if _, known := password.Reparse(s); known {
			t.Errorf("%.80q is understood", s)
		}
	}
}

func TestA6_Normalization(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap, 0, 0)
	raw, err := bcrypt.GenerateFromPassword([]byte(decomposed), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, hash, password string
		ok                   bool
	}{
		{"composed both times", hash(t, h, composed), composed, true},
		{"composed, then decomposed", hash(t, h, composed), decomposed, true},
		{"decomposed, then composed", hash(t, h, decomposed), composed, true},
		{"imported decomposed", string(raw), decomposed, true},
		{"imported decomposed, then composed", string(raw), composed, false},
		{"without the accent", hash(t, h, composed), "cafe au lait", false},
	}
	for _, test := range tests {
		if ok, outdated := verify(t, h, test.hash, test.password); ok != test.ok || outdated != (ok && test.hash == string(raw)) {
			t.Errorf("%s: %t, outdated %t; want %t", test.name, ok, outdated, test.ok)
		}
	}
}

func TestA6_RawMatchIsOutdated(t *testing.T) {
	t.Parallel()
	// Argon2id of the decomposed form with salt "somesalt", as other software would have made it.
	const stored = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$RAWKEY"
	h := newHasher(t, cheap, 0, 0)
	s := strings.Replace(stored, "RAWKEY", rawKey(decomposed, "somesalt", 64, 1), 1)
	if ok, outdated := verify(t, h, s, decomposed); !ok || !outdated {
		t.Errorf("%t, outdated %t; want both", ok, outdated)
	}
	if ok, _ := verify(t, h, s, composed); ok {
		t.Error("the composed form matches a hash of the decomposed")
	}
}

func TestA6_OddPasswordsNeverMatch(t *testing.T) {
	t.Parallel()
	h := newHasher(t, cheap, 0, 0)
	for _, pw := range []string{
		"a NUL\x00 inside", "\x00", "latin-1 caf\xe9", "surrogate \xed\xa0\x80 half", "overlong \xc0\x80",
		strings.Repeat("a", 1025), strings.Repeat("a", 1<<20),
	} {
		var refused *password.PolicyError
		if _, err := h.Hash(t.Context(), pw); !errors.As(err, &refused) {
			t.Errorf("hash of %.30q: %v, not a PolicyError", pw, err)
		}
		// A hash that somebody else made of it, and of what is left of it in our hands.
		cut := strings.ToValidUTF8(pw[:min(len(pw), 1024)], "?")
		for _, made := range []string{pw, cut} {
			s := "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$" + rawKey(made, "somesalt", 64, 1)
			if ok, outdated := verify(t, h, s, pw); ok || outdated {
				t.Errorf("%.30q: %t, outdated %t", pw, ok, outdated)
			}
		}
	}
	long := strings.Repeat("a", 1024)
	stored := hash(t, h, long)
	if ok, _ := verify(t, h, stored, long); !ok {
		t.Error("a password of 1024 bytes does not match")
	}
	for _, other := range []string{long[1:], long + "a", long[1:] + "b"} {
		if ok, _ := verify(t, h, stored, other); ok {
			t.Errorf("a password of %d bytes matches another", len(other))
		}
	}
}

func FuzzHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	f.Add("$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW")
	f.Fuzz(func(t *testing.T, s string) {
		again, known := password.Reparse(s)
		if !known {
			return
		}
		if third, ok := password.Reparse(again); !ok || third != again {
			t.Errorf("%q is written as %q and that as %q, %t", s, again, third, ok)
		}
	})
}

func BenchmarkHash(b *testing.B) {
	h := newHasher(b, password.Params{}, 0, 0)
	for b.Loop() {
		hash(b, h, "secret123.")
	}
}

// BenchmarkVerify measures wrong passwords of known and of unknown users in turns. Their medians
// are to be the same.
func BenchmarkVerify(b *testing.B) {
	h := newHasher(b, password.Params{}, 0, 0)
	stored := [2]string{hash(b, h, "secret123."), ""}
	var times [2][]time.Duration
	for b.Loop() {
		for i, s := range stored {
			start := time.Now()
			verify(b, h, s, "wrong password")
			times[i] = append(times[i], time.Since(start))
		}
	}
	for i, name := range []string{"ns/known", "ns/unknown"} {
		slices.Sort(times[i])
		b.ReportMetric(float64(times[i][len(times[i])/2]), name)
	}
}

func ended(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

package totp_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate/internal/totp"
)

var (
	secret = []byte("12345678901234567890") // of RFC 6238 appendix B
	now    = time.Unix(1_700_000_010, 0)    // the first second of a step
)

// RFC 6238 appendix B, the SHA-1 rows; with six digits, the last six of the eight.
func TestCodeRFC6238(t *testing.T) {
	t.Parallel()
	tests := []struct {
		unix int64
		want string
	}{
		{59, "94287082"},
		{1111111109, "07081804"},
		{1111111111, "14050471"},
		{1234567890, "89005924"},
		{2000000000, "69279037"},
		{20000000000, "65353130"},
	}
	for _, test := range tests {
		at, want := time.Unix(test.unix, 0), test.want[2:]
		if got := totp.Code(secret, at); got != want {
			t.Errorf("code at %d: %s, want %s", test.unix, got, want)
		}
		if step, ok := totp.Verify(secret, want, at, 0); !ok || step != test.unix/30 {
			t.Errorf("verify at %d: step %d, %t", test.unix, step, ok)
		}
	}
}

func TestVerifyWindow(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		offset time.Duration
		ok     bool
	}{
		{-61 * time.Second, false}, {-60 * time.Second, false}, {-31 * time.Second, false},
		{-30 * time.Second, true}, {-time.Second, true}, {0, true}, {29 * time.Second, true},
		{30 * time.Second, true}, {59 * time.Second, true}, {60 * time.Second, false}, {time.Hour, false},
	} {
		at := now.Add(test.offset)
		step, ok := totp.Verify(secret, totp.Code(secret, at), now, 0)
		if ok != test.ok {
			t.Errorf("code of %v: %t, want %t", test.offset, ok, test.ok)
		}
		if want := at.Unix() / 30; ok && step != want {
			t.Errorf("code of %v: step %d, want %d", test.offset, step, want)
		}
		if !ok && step != 0 {
			t.Errorf("code of %v: step %d with a code that is refused", test.offset, step)
		}
	}
}

func TestA12_CodesAreAcceptedOnce(t *testing.T) {
	t.Parallel()
	code := totp.Code(secret, now)
	step, ok := totp.Verify(secret, code, now, 0)
	if !ok {
		t.Fatal("the code is refused")
	}
	for _, later := range []time.Duration{0, time.Second, 30 * time.Second} {
		if _, ok := totp.Verify(secret, code, now.Add(later), step); ok {
			t.Errorf("the code is accepted again %v later", later)
		}
	}
	if _, ok := totp.Verify(secret, totp.Code(secret, now.Add(-30*time.Second)), now, step); ok {
		t.Error("an earlier code is accepted after a later one")
	}
	next, ok := totp.Verify(secret, totp.Code(secret, now.Add(30*time.Second)), now, step)
	if !ok || next != step+1 {
		t.Errorf("the next code: step %d, %t; want %d", next, ok, step+1)
	}
}

// Steps may have the same code by chance; accepting it must use it up for all that are in reach.
func TestA12_TwinCodesAreAcceptedOnce(t *testing.T) {
	t.Parallel()
	at := time.Unix(30*910737, 0) // this step and the next
	if totp.Code(secret, at) != totp.Code(secret, at.Add(30*time.Second)) {
		t.Fatal("not the same code")
	}
	code := totp.Code(secret, at)
	step, ok := totp.Verify(secret, code, at, 0)
	if !ok {
		t.Fatal("the code is refused")
	}
	if _, ok := totp.Verify(secret, code, at.Add(30*time.Second), step); ok {
		t.Error("the code is accepted again")
	}
}

func TestVerifyCodeFormat(t *testing.T) {
	t.Parallel()
	code := totp.Code(secret, now)
	for _, test := range []struct {
		code string
		ok   bool
	}{
		{code, true}, {" " + code + "\n", true}, {"", false}, {code[:5], false}, {code + "0", false}, {"0" + code, false},
		{code[:3] + " " + code[3:], false}, {"+" + code[1:], false}, {"٠١٢٣٤٥", false}, {strings.Repeat(code, 1000), false},
		{"abcdef", false}, {"\x00" + code, false},
	} {
		if _, ok := totp.Verify(secret, test.code, now, 0); ok != test.ok {
			t.Errorf("%.20q: %t, want %t", test.code, ok, test.ok)
		}
	}
}

func TestVerifyRefusesShortSecrets(t *testing.T) {
	t.Parallel()
	for _, s := range [][]byte{nil, {}, secret[:9], bytes.Repeat(secret, 4)} {
		if _, ok := totp.Verify(s, totp.Code(s, now), now, 0); ok {
			t.Errorf("a secret of %d bytes verifies a code", len(s))
		}
	}
}

func TestSecret(t *testing.T) {
	t.Parallel()
	a, b := totp.NewSecret(), totp.NewSecret()
	if len(a) != 20 || bytes.Equal(a, b) || bytes.Equal(a, make([]byte, 20)) {
		t.Errorf("secrets of %d and %d bytes, equal %t", len(a), len(b), bytes.Equal(a, b))
	}
	decoded, err := totp.Decode(totp.Encode(a))
	if err != nil || !bytes.Equal(decoded, a) {
		t.Errorf("decoded %x, %v; want %x", decoded, err, a)
	}
}

func TestDecode(t *testing.T) {
	t.Parallel()
	const encoded = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // of secret
	for _, s := range []string{
		encoded, strings.ToLower(encoded), "gezd gnbv gy3t qojq gezd gnbv gy3t qojq", " " + encoded + "\n", encoded + "======",
	} {
		got, err := totp.Decode(s)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%q: %x, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "=", encoded[:8], "GEZDGNBVGY3TQOI", encoded + "=A", encoded + "1", encoded + "A", "GEZD-" + encoded, "0189" + encoded,
		strings.Repeat(encoded, 4), strings.Repeat("A", 1<<20), encoded[:31] + "ä",
	} {
		if got, err := totp.Decode(s); err == nil {
			t.Errorf("%.50q is decoded as %x", s, got)
		} else if strings.Contains(err.Error(), "GEZD") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	for n, want := range map[int]bool{9: false, 10: true, 64: true, 65: false} {
		if _, err := totp.Decode(totp.Encode(make([]byte, n))); (err == nil) != want {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

package seal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/seal"
)

// secret returns 32 bytes that begin with b.
func secret(b byte) []byte {
	s := make([]byte, 32)
	for i := range s {
		s[i] = b + byte(i)
	}
	return s
}

func newKey(t testing.TB, b byte) *seal.Key {
	t.Helper()
	k, err := seal.NewKey(secret(b))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealOpen(t *testing.T) {
	t.Parallel()
	k := newKey(t, 1)
	for _, plaintext := range [][]byte{nil, {}, {0}, []byte("seed"), bytes.Repeat([]byte("x"), 1<<20)} {
		sealed := k.Seal("totp/1", plaintext)
		if len(sealed) != len(plaintext)+seal.Overhead {
			t.Errorf("%d bytes sealed are %d, want %d more", len(plaintext), len(sealed), seal.Overhead)
		}
		if len(plaintext) > 3 && bytes.Contains(sealed, plaintext) {
			t.Errorf("sealed value contains its plaintext")
		}
		got, err := k.Open("totp/1", sealed)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Errorf("Open: %d bytes, %v; want the %d bytes that were sealed", len(got), err, len(plaintext))
		}
		if bytes.Equal(k.Seal("totp/1", plaintext), sealed) {
			t.Errorf("the same value sealed twice gives the same bytes")
		}
	}
}

// The format is stored, so later versions must read it. This envelope and the
// key below were checked with another implementation of HKDF and AES-GCM.
func TestOpenStored(t *testing.T) {
	t.Parallel()
	stored := []byte(storedEnvelope)
	got, err := newKey(t, 1).Open("totp/1", stored)
	if err != nil || string(got) != "seed" {
		t.Errorf("Open of an envelope of version 1: %q, %v", got, err)
	}
}

const storedEnvelope = "\x01\x3C\xDA\x04\xB8" +
	"\xE0\xD0\x9B\xA1\xA5\xA5\xA9\xF6\x08\x23\xF1\x81" +
	"\x3F\x12\x9B\x32\x85\xDE\xD5\x94\xC7\xCC\x00\x6E\x49\xB1\xD2\x92\x08\x57\x2F\xB5"

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	k := newKey(t, 1)
	sealed := k.Seal("totp/1", []byte("seed"))

	for _, context := range []string{"", "totp/", "totp/2", "totp/10", "key/1", "totp/1 ", "TOTP/1"} {
		if got, err := k.Open(context, sealed); err != seal.ErrOpen || got != nil {
			t.Errorf("in context %q: %q, %v; want ErrOpen", context, got, err)
		}
	}

	// The plaintext or the context must not be able to begin with the other's bytes.
	if _, err := k.Open("totp/1"+string(sealed[5:6]), append(sealed[:5:5], sealed[6:]...)); err != seal.ErrOpen {
		t.Errorf("bytes moved into the context: %v, want ErrOpen", err)
	}

	for n := range sealed {
		if _, err := k.Open("totp/1", sealed[:n]); err != seal.ErrOpen {
			t.Errorf("cut to %d bytes: %v, want ErrOpen", n, err)
		}
	}
	if _, err := k.Open("totp/1", append(sealed[:len(sealed):len(sealed)], 0)); err != seal.ErrOpen {
		t.Errorf("with a byte more: %v, want ErrOpen", err)
	}

	// Of a version that does not exist yet the key id means nothing.
	later := newKey(t, 2).Seal("totp/1", []byte("seed"))
	later[0] = 2
	if _, err := k.Open("totp/1", later); err != seal.ErrOpen {
		t.Errorf("envelope of version 2: %v, want ErrOpen", err)
	}

	for i := range sealed {
		for bit := range 8 {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1 << bit
			want := seal.ErrOpen
			if i >= 1 && i <= 4 {
				want = seal.ErrOtherKey
			}
			if got, err := k.Open("totp/1", changed); err != want || got != nil {
				t.Errorf("bit %d of byte %d changed: %q, %v; want %v", bit, i, got, err, want)
			}
		}
	}
}

func TestJ7_SwappedKeyIsNamed(t *testing.T) {
	t.Parallel()
	sealed := newKey(t, 1).Seal("totp/1", []byte("seed"))
	_, err := newKey(t, 2).Open("totp/1", sealed)
	if err != seal.ErrOtherKey {
		t.Errorf("Open under another key: %v, want ErrOtherKey", err)
	}
	if errors.Is(err, seal.ErrOpen) {
		t.Errorf("ErrOtherKey passes for ErrOpen, so a wrong key file looks like a damaged row")
	}
}

func TestJ7_NewKeyRefuses(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string][]byte{
		"nil": nil, "31 bytes": secret(1)[:31], "33 bytes": append(secret(1), 1), "zeros": make([]byte, 32),
	} {
		if k, err := seal.NewKey(secret); err == nil || k != nil {
			t.Errorf("%s: %v, %v; want an error", name, k, err)
		}
	}
}

func TestNewKeyCopies(t *testing.T) {
	t.Parallel()
	s := secret(1)
	k, err := seal.NewKey(s)
	if err != nil {
		t.Fatal(err)
	}
	clear(s)
	if k.Derive("a") != newKey(t, 1).Derive("a") {
		t.Errorf("key changes with the secret that it was made from")
	}
}

func TestDerive(t *testing.T) {
	t.Parallel()
	k := newKey(t, 1)
	seen := map[[32]byte]string{{}: "zero", [32]byte(secret(1)): "secret"}
	for _, label := range []string{"", "a", "b", "id", "encrypt", "derive:a", strings.Repeat("a", 1000)} {
		d := k.Derive(label)
		if other, ok := seen[d]; ok {
			t.Errorf("label %.10q gives the same key as %.10q", label, other)
		}
		seen[d] = label
		if k.Derive(label) != d {
			t.Errorf("label %.10q does not always give the same key", label)
		}
		if newKey(t, 2).Derive(label) == d {
			t.Errorf("label %.10q gives the same key for another master key", label)
		}
	}
	// What was derived must stay derivable by later versions.
	if got := fmt.Sprintf("%x", k.Derive("a")); got != derivedA {
		t.Errorf("Derive(a) = %s, want %s", got, derivedA)
	}
}

const derivedA = "1b5bb46a913374317c8034de633be5ae72788818c001b46836172c0cd70b33f2"

func TestKeyNeverShows(t *testing.T) {
	t.Parallel()
	k := newKey(t, 'A') // the secret is readable text
	type holder struct {
		Public  *seal.Key
		private *seal.Key
		value   seal.Key
		any     any
	}
	h := holder{k, k, *k, k}

	var texts []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%t", "%p", "%c", "%U", "%e"} {
		for _, v := range []any{k, *k} {
			got := fmt.Sprintf(verb, v)
			if got != "REDACTED" && verb != "%p" {
				t.Errorf("%s of %T: %q", verb, v, got)
			}
			texts = append(texts, got)
		}
		texts = append(texts, fmt.Sprintf(verb, h), fmt.Sprintf(verb, &h), fmt.Sprintf(verb, []any{k, *k, h}))
	}
	for _, v := range []any{k, *k, h} {
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", v)
		texts = append(texts, string(j), log.String())
	}
	texts = append(texts, k.String(), k.GoString(), k.LogValue().String())

	for _, s := range secretForms(secret('A')) {
		for _, text := range texts {
			if strings.Contains(text, s) {
				t.Errorf("%q shows part of the key, %q", text, s)
			}
		}
	}
}

// secretForms returns how four bytes inside a secret could be printed.
func secretForms(secret []byte) []string {
	part := secret[2:6]
	return []string{
		string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part),
		strings.Trim(fmt.Sprintf("%d", part), "[]"), strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
		strings.Trim(fmt.Sprintf("%o", part), "[]"), strings.Trim(fmt.Sprintf("%b", part), "[]"),
	}
}

// FuzzOpen opens what never was sealed, and what was, with bytes changed.
func FuzzOpen(f *testing.F) {
	k := newKey(f, 1)
	f.Add("totp/1", []byte(nil))
	f.Add("totp/1", k.Seal("totp/1", []byte("seed")))
	f.Add("", k.Seal("", nil))
	f.Add("totp/1", newKey(f, 2).Seal("totp/1", []byte("seed")))
	f.Fuzz(func(t *testing.T, context string, data []byte) {
		got, err := k.Open(context, data)
		switch err {
		case nil:
			// Nobody but Seal makes such a value, so it is one of those above.
			if len(got)+seal.Overhead != len(data) {
				t.Fatalf("opened %d bytes to %d", len(data), len(got))
			}
			if _, err := k.Open(context+"x", data); err != seal.ErrOpen {
				t.Fatalf("opens in another context: %v", err)
			}
		case seal.ErrOpen, seal.ErrOtherKey:
			if got != nil {
				t.Fatalf("plaintext beside the error %v", err)
			}
		default:
			t.Fatalf("error is neither of the two: %v", err)
		}

		opened, err := k.Open(context, k.Seal(context, data))
		if err != nil || !bytes.Equal(opened, data) {
			t.Fatalf("does not open what it sealed: %v", err)
		}
	})
}

func BenchmarkSealOpen(b *testing.B) {
	k := newKey(b, 1)
	plaintext := secret(9)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open("totp/1", k.Seal("totp/1", plaintext)); err != nil {
			b.Fatal(err)
		}
	}
}

package jwt_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/jwt"
)

func newKey(b byte) (ed25519.PrivateKey, ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	return private, private.Public().(ed25519.PublicKey)
}

// only returns a key function that knows one key.
func only(kid string, key ed25519.PublicKey) func(string) ed25519.PublicKey {
	return func(got string) ed25519.PublicKey {
		if got == kid {
			return key
		}
		return nil
	}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func TestSignVerify(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	claims := `{"sub":"1","exp":1,"x":"é"}` // expired: not looked at
	for _, kid := range []string{jwt.KeyID(public), "1", `a "quoted\" id`, "é", strings.Repeat("k", 128)} {
		token := jwt.Sign(kid, private, []byte(claims))
		got, err := jwt.Verify(token, only(kid, public))
		if err != nil || string(got) != claims {
			t.Errorf("kid %q: %q, %v", kid, got, err)
		}
		if jwt.Sign(kid, private, []byte(claims)) != token {
			t.Errorf("signing is not deterministic")
		}
	}
	if got, err := jwt.Verify(jwt.Sign("1", private, nil), only("1", public)); err != nil || len(got) != 0 {
		t.Errorf("no claims: %q, %v", got, err)
	}
}

func TestSignHeader(t *testing.T) {
	t.Parallel()
	private, _ := newKey(1)
	header, _, _ := strings.Cut(jwt.Sign("a", private, []byte("{}")), ".")
	if want := b64(`{"typ":"JWT","alg":"EdDSA","kid":"a"}`); header != want {
		t.Errorf("header %s, want %s", header, want)
	}
}

// RFC 8037, appendix A.
func TestRFC8037(t *testing.T) {
	t.Parallel()
	const (
		d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
		x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	)
	seed, err := base64.RawURLEncoding.DecodeString(d)
	if err != nil {
		t.Fatal(err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public := private.Public().(ed25519.PublicKey)

	// A.3
	if got, want := jwt.KeyID(public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; got != want {
		t.Errorf("thumbprint %s, want %s", got, want)
	}
	// A.4
	const want = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-" +
		"09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
	if got := jwt.Encode([]byte(`{"alg":"EdDSA"}`), []byte("Example of Ed25519 signing"), private); got != want {
		t.Errorf("signed %s, want %s", got, want)
	}
	// A.5, but here every token needs a kid.
	if _, err := jwt.Verify(want, func(string) ed25519.PublicKey { return public }); err != jwt.ErrInvalid {
		t.Errorf("token without kid: %v, want ErrInvalid", err)
	}
	// A.2
	set := string(jwt.JWKS([]ed25519.PublicKey{public}))
	wantSet := `{"keys":[{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA",` +
		`"kid":"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k","x":"` + x + `"}]}`
	if set != wantSet {
		t.Errorf("key set %s, want %s", set, wantSet)
	}
}

func TestJWKS(t *testing.T) {
	t.Parallel()
	if got := string(jwt.JWKS(nil)); got != `{"keys":[]}` {
		t.Errorf("empty set %s", got)
	}
	_, first := newKey(1)
	_, second := newKey(2)
	var set struct {
		Keys []struct {
			Kid string
		}
	}
	if err := json.Unmarshal(jwt.JWKS([]ed25519.PublicKey{first, second}), &set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 2 || set.Keys[0].Kid != jwt.KeyID(first) || set.Keys[1].Kid != jwt.KeyID(second) {
		t.Errorf("keys %+v, want both in order", set.Keys)
	}
}

// Every header here is validly signed, so it is the header that is refused.
func TestJ2_Headers(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	x := base64.RawURLEncoding.EncodeToString(public)
	for _, test := range []struct {
		header string
		ok     bool
	}{
		{`{"typ":"JWT","alg":"EdDSA","kid":"a"}`, true},
		{`{"kid":"a","alg":"EdDSA"}`, true},
		{" {\"alg\":\"EdDSA\",\n\"kid\":\"a\",\"cty\":[1,{\"alg\":\"none\"}]} ", true},
		{`{"\u0061lg":"EdDS\u0041","kid":"\u0061"}`, true},

		{`{"alg":"none","kid":"a"}`, false},
		{`{"alg":"None","kid":"a"}`, false},
		{`{"alg":"","kid":"a"}`, false},
		{`{"alg":null,"kid":"a"}`, false},
		{`{"alg":["EdDSA"],"kid":"a"}`, false},
		{`{"kid":"a"}`, false},
		{`{"Alg":"EdDSA","kid":"a"}`, false},
		{`{"alg":"eddsa","kid":"a"}`, false},
		{`{"alg":"EdDSA ","kid":"a"}`, false},
		{`{"alg":"EdDSA\u0000","kid":"a"}`, false},
		{`{"alg":"Ed25519","kid":"a"}`, false},
		{`{"alg":"Ed448","kid":"a"}`, false},
		{`{"alg":"HS256","kid":"a"}`, false},
		{`{"alg":"RS256","kid":"a"}`, false},
		{`{"alg":"PS256","kid":"a"}`, false},
		{`{"alg":"ES256","kid":"a"}`, false},
		{`{"alg":"ES256K","kid":"a"}`, false},

		{`{"alg":"EdDSA"}`, false},
		{`{"alg":"EdDSA","kid":""}`, false},
		{`{"alg":"EdDSA","kid":null}`, false},
		{`{"alg":"EdDSA","kid":1}`, false},
		{`{"alg":"EdDSA","kid":["a"]}`, false},
		{`{"alg":"EdDSA","kid":"b"}`, false},
		{`{"alg":"EdDSA","kid":"a/../a"}`, false},
		{`{"alg":"EdDSA","kid":"a' OR '1'='1"}`, false},

		{`{"alg":"EdDSA","kid":"a","jwk":{"kty":"OKP","crv":"Ed25519","x":"` + x + `"}}`, false},
		{`{"alg":"EdDSA","kid":"a","jku":"https://example.com/keys"}`, false},
		{`{"alg":"EdDSA","kid":"a","x5u":"https://example.com/cert"}`, false},
		{`{"alg":"EdDSA","kid":"a","x5c":["MIIB"]}`, false},
		{`{"alg":"EdDSA","kid":"a","\u006Awk":null}`, false},
		{`{"alg":"EdDSA","kid":"a","crit":["b64"],"b64":false}`, false},
		{`{"alg":"EdDSA","kid":"a","crit":[]}`, false},
		{`{"crit":["exp"],"alg":"EdDSA","kid":"a"}`, false},

		{`{"alg":"none","alg":"EdDSA","kid":"a"}`, false},
		{`{"alg":"EdDSA","kid":"a","alg":"EdDSA"}`, false},
		{`{"alg":"EdDSA","kid":"b","kid":"a"}`, false},
		{`{"alg":"EdDSA","kid":"a","\u006Bid":"a"}`, false},
		{`{"alg":"EdDSA","kid":"a","x":1,"x":1}`, false},

		{``, false},
		{`null`, false},
		{`"EdDSA"`, false},
		{`[{"alg":"EdDSA","kid":"a"}]`, false},
		{`{"alg":"EdDSA","kid":"a"}{}`, false},
		{`{"alg":"EdDSA","kid":"a",}`, false},
		{`{"alg":"EdDSA","kid":"a"`, false},
		{"\xEF\xBB\xBF" + `{"alg":"EdDSA","kid":"a"}`, false},
		{"{\"alg\":\"EdDSA\",\"kid\":\"a\",\"x\":\"\xFF\"}", false},
		{`{"alg":"EdDSA","kid":"a","x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`, false},
	} {
		token := jwt.Encode([]byte(test.header), []byte(`{"sub":"1"}`), private)
		claims, err := jwt.Verify(token, only("a", public))
		switch {
		case test.ok && (err != nil || string(claims) != `{"sub":"1"}`):
			t.Errorf("%.80s: %q, %v", test.header, claims, err)
		case !test.ok && (err != jwt.ErrInvalid || claims != nil):
			t.Errorf("%.80s: %q, %v; want ErrInvalid", test.header, claims, err)
		}
	}
}

func TestJ2_KeyIDLength(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	for _, n := range []int{0, 129, 4000} {
		kid := strings.Repeat("k", n)
		_, err := jwt.Verify(jwt.Sign(kid, private, []byte("{}")), func(string) ed25519.PublicKey {
			t.Errorf("kid of %d bytes is looked up", n)
			return public
		})
		if err != jwt.ErrInvalid {
			t.Errorf("kid of %d bytes: %v, want ErrInvalid", n, err)
		}
	}
}

// The public key is public: nothing that is made from it may verify.
func TestJ2_HMACWithPublicKey(t *testing.T) {
	t.Parallel()
	_, public := newKey(1)
	for _, alg := range []string{"HS256", "EdDSA"} {
		for _, secret := range []string{string(public), b64(string(public)), string(jwt.JWKS([]ed25519.PublicKey{public}))} {
			signed := b64(`{"typ":"JWT","alg":"`+alg+`","kid":"a"}`) + "." + b64(`{"admin":true}`)
			mac := hmac.New(sha256.New, []byte(secret))
			mac.Write([]byte(signed))
			sum := string(mac.Sum(nil))
			for _, signature := range []string{sum, sum + sum} {
				if _, err := jwt.Verify(signed+"."+b64(signature), only("a", public)); err != jwt.ErrInvalid {
					t.Errorf("alg %s: %v, want ErrInvalid", alg, err)
				}
			}
		}
	}
}

func TestJ2_Signatures(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	other, otherPublic := newKey(2)
	token := jwt.Sign("a", private, []byte(`{"sub":"1"}`))
	header, claims, signature := split(t, token)

	for name, bad := range map[string]string{
		"other key":            jwt.Sign("a", other, []byte(`{"sub":"1"}`)),
		"other claims":         header + "." + b64(`{"sub":"2"}`) + "." + signature,
		"other header":         b64(`{"alg":"EdDSA","kid":"a"}`) + "." + claims + "." + signature,
		"none":                 header + "." + claims + ".",
		"none, without dot":    header + "." + claims,
		"of another token":     header + "." + claims + "." + lastPart(t, jwt.Sign("a", private, []byte(`{}`))),
		"zeros":                header + "." + claims + "." + b64(strings.Repeat("\x00", 64)),
		"a byte short":         header + "." + claims + "." + b64(strings.Repeat("x", 63)),
		"a byte more":          token + "AA",
		"parts exchanged":      claims + "." + header + "." + signature,
		"S above the order":    header + "." + claims + "." + addOrder(t, signature),
		"signed without a dot": header + claims + ".." + signature,
	} {
		if got, err := jwt.Verify(bad, only("a", public)); err != jwt.ErrInvalid || got != nil {
			t.Errorf("%s: %q, %v; want ErrInvalid", name, got, err)
		}
	}
	for name, key := range map[string]ed25519.PublicKey{
		"unknown": nil, "empty": {}, "short": public[:31], "long": append(public[:32:32], 0), "other": otherPublic,
	} {
		if got, err := jwt.Verify(token, only("a", key)); err != jwt.ErrInvalid || got != nil {
			t.Errorf("%s key: %q, %v; want ErrInvalid", name, got, err)
		}
	}
}

// No character of a token can be changed, left out or added.
func TestJ2_EveryCharacterCounts(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	// Lengths that leave unused bits in the last character of header and claims.
	token := jwt.Sign("aa", private, []byte(`{"sub":"12"}`))
	verify := only("aa", public)
	if _, err := jwt.Verify(token, verify); err != nil {
		t.Fatal(err)
	}
	var bad []string
	for i := range len(token) {
		bad = append(bad, token[:i]+token[i+1:], token[:i])
		for _, c := range "AQgwBCDE_-+/=.\n\r \t\x00é%" {
			if string(c) != token[i:i+1] {
				bad = append(bad, token[:i]+string(c)+token[i+1:])
			}
			bad = append(bad, token[:i]+string(c)+token[i:])
		}
	}
	for _, c := range []string{"=", "==", "\n", "\r\n", " ", ".", "A"} {
		bad = append(bad, token+c, c+token)
	}
	for _, b := range bad {
		if b == token {
			continue // a doubled character left out or put in
		}
		if _, err := jwt.Verify(b, verify); err != jwt.ErrInvalid {
			t.Errorf("%q: %v, want ErrInvalid", b, err)
		}
	}
}

func TestJ2_Shape(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	token := jwt.Sign("a", private, []byte(`{}`))
	_, _, signature := split(t, token)
	for _, bad := range []string{
		"", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "a.b.c.d.e", token + ".", token + "." + signature,
		"." + token, "Bearer " + token, `{"payload":"","signatures":[]}`, strings.Repeat(".", 100),
	} {
		if _, err := jwt.Verify(bad, only("a", public)); err != jwt.ErrInvalid {
			t.Errorf("%q: %v, want ErrInvalid", bad, err)
		}
	}
}

func TestJ2_Size(t *testing.T) {
	t.Parallel()
	private, public := newKey(1)
	// Claims are as long as fits: characters come in groups of 2, 3 and 4.
	sign := func(n int) string { return jwt.Sign("a", private, bytes.Repeat([]byte("x"), n)) }
	n := 0
	for len(sign(n+1)) <= jwt.MaxSize {
		n++
	}
	largest := sign(n)
	if len(largest) < jwt.MaxSize-1 {
		t.Fatalf("largest token has %d bytes", len(largest))
	}
	if _, err := jwt.Verify(largest, only("a", public)); err != nil {
		t.Errorf("token of %d bytes: %v", len(largest), err)
	}
	if _, err := jwt.Verify(sign(n+1), only("a", public)); err != jwt.ErrInvalid {
		t.Errorf("token of %d bytes: %v, want ErrInvalid", len(sign(n+1)), err)
	}
}

// What is too large costs nothing: it is not even split.
func TestJ2_BoundedWork(t *testing.T) {
	huge := []string{
		strings.Repeat(".", 1<<20), strings.Repeat("A", 1<<20), strings.Repeat("A.", 1<<19),
		b64(`{"alg":"EdDSA","kid":"`+strings.Repeat("k", 1<<20)) + ".e30.AAAA",
	}
	lookup := func(string) ed25519.PublicKey { t.Error("key is looked up"); return nil }
	for _, token := range huge {
		allocs := testing.AllocsPerRun(10, func() {
			if _, err := jwt.Verify(token, lookup); err != jwt.ErrInvalid {
				t.Errorf("%.20q and so on: %v, want ErrInvalid", token, err)
			}
		})
		if allocs != 0 {
			t.Errorf("%.20q and so on: %v allocations, want none", token, allocs)
		}
	}
}

func FuzzVerify(f *testing.F) {
	private, public := newKey(1)
	token := jwt.Sign("a", private, []byte(`{"sub":"1"}`))
	f.Add(token, `{"typ":"JWT","alg":"EdDSA","kid":"a"}`)
	f.Add(strings.Replace(token, ".", "..", 1), `{"alg":"none","kid":"a"}`)
	f.Add("..", `{"alg":"EdDSA","kid":"a","kid":"a"}`)
	f.Add(b64(`{"alg":"EdDSA","kid":"a"}`)+".e30.", `{"alg":"EdDSA","kid":"a","crit":[]}`)
	f.Fuzz(func(t *testing.T, text, header string) {
		lookup := func(kid string) ed25519.PublicKey {
			if kid == "" || len(kid) > jwt.MaxKeyID {
				t.Fatalf("kid of %d bytes is looked up", len(kid))
			}
			return public
		}
		// Without the private key only the token above verifies.
		claims, err := jwt.Verify(text, lookup)
		if err != nil && (err != jwt.ErrInvalid || claims != nil) {
			t.Fatalf("%q, %v", claims, err)
		}
		if err == nil && text != token {
			t.Fatalf("forged: %q", text)
		}

		// A signed header is accepted only if encoding/json finds the same in it.
		if _, err := jwt.Verify(jwt.Encode([]byte(header), nil, private), lookup); err == nil {
			var h map[string]any
			if err := json.Unmarshal([]byte(header), &h); err != nil {
				t.Fatalf("header %q is accepted: %v", header, err)
			}
			if kid, _ := h["kid"].(string); h["alg"] != "EdDSA" || kid == "" {
				t.Fatalf("header %q is accepted", header)
			}
			for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit"} {
				if _, ok := h[name]; ok {
					t.Fatalf("header %q is accepted", header)
				}
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	private, public := newKey(1)
	kid := jwt.KeyID(public)
	token := jwt.Sign(kid, private, fmt.Appendf(nil, `{"sub":"%036d","iat":1700000000,"exp":1700003600,`+
		`"email":"somebody@example.com","csrf_token":"%020d","admin":false,"sid":"%043d"}`, 1, 2, 3))
	key := only(kid, public)
	b.Run("valid", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jwt.Verify(token, key); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("dots", func(b *testing.B) {
		dots := strings.Repeat(".", 1<<20)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jwt.Verify(dots, key); err == nil {
				b.Fatal("verified")
			}
		}
	})
	b.Run("dots8K", func(b *testing.B) {
		dots := strings.Repeat(".", jwt.MaxSize)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := jwt.Verify(dots, key); err == nil {
				b.Fatal("verified")
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	private, public := newKey(1)
	kid := jwt.KeyID(public)
	claims := []byte(`{"sub":"1","exp":1700003600}`)
	b.ReportAllocs()
	for b.Loop() {
		jwt.Sign(kid, private, claims)
	}
}

func split(t *testing.T, token string) (header, claims, signature string) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("token has %d parts", len(parts))
	}
	return parts[0], parts[1], parts[2]
}

func lastPart(t *testing.T, token string) string {
	_, _, signature := split(t, token)
	return signature
}

// addOrder adds the order of the group to the second half of a signature,
// which names the same point and must be refused (RFC 8032, section 5.1.7).
func addOrder(t *testing.T, signature string) string {
	t.Helper()
	s, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil {
		t.Fatal(err)
	}
	order := []byte("\xED\xD3\xF5\x5C\x1A\x63\x12\x58\xD6\x9C\xF7\xA2\xDE\xF9\xDE\x14" +
		strings.Repeat("\x00", 15) + "\x10")
	carry := 0
	for i, o := range order {
		sum := int(s[32+i]) + int(o) + carry
		s[32+i], carry = byte(sum), sum>>8
	}
	return base64.RawURLEncoding.EncodeToString(s)
}

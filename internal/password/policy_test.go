package password_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/bedplate/bedplate/internal/password"
)

func TestA6_Policy(t *testing.T) {
	t.Parallel()
	all := password.Policy{MixedCase: true, Digits: true, Special: true}
	tests := []struct {
		name     string
		policy   password.Policy
		password string
		want     string
	}{
		{"1 byte", password.Policy{}, "x", "Password too short"},
		{"empty", password.Policy{}, "", "Password too short"},
		{"7 bytes", password.Policy{}, "xq7-zrk", "Password too short"},
		{"8 bytes", password.Policy{}, "xq7-zrkl", ""},
		{"4 characters of 8 bytes", password.Policy{}, "äöüß", ""},
		{"64 bytes", password.Policy{}, strings.Repeat("x", 64), ""},
		{"128 bytes", password.Policy{}, strings.Repeat("x", 128), ""},
		{"129 bytes", password.Policy{}, strings.Repeat("x", 129), "Password too long"},
		{"1 MB", password.Policy{}, strings.Repeat("x", 1<<20), "Password too long"},
		{"shorter minimum", password.Policy{MinLength: 3}, "xyz", ""},
		{"longer minimum", password.Policy{MinLength: 12}, "xq7-zrkl123", "Password too short"},
		{"NUL", password.Policy{}, "xq7-\x00zrkl", "Password contains invalid characters"},
		{"not UTF-8", password.Policy{}, "xq7-\xffzrkl", "Password contains invalid characters"},
		{"half a surrogate pair", password.Policy{}, "xq7-\xed\xa0\x80zrkl", "Password contains invalid characters"},
		{"too short and invalid", password.Policy{}, "\xff", "Password too short"},
		{"too long and invalid", password.Policy{}, strings.Repeat("\xff", 129), "Password too long"},
		{"composed", password.Policy{}, composed, ""},
		{"decomposed", password.Policy{}, decomposed, ""},
		{"space", password.Policy{}, "        ", ""},

		{"no digits", all, "abcdefgh", "Must contain digits"},
		{"all digits", all, "19283746", "Must contain non-digits"},
		{"all digits, unless asked for digits", password.Policy{Special: true}, "19283746", "Must contain special characters"},
		{"lower case only", all, "abcdefg1", "Must contain lower and upper case"},
		{"upper case only", all, "ABCDEFG1", "Must contain lower and upper case"},
		{"nothing special", all, "Abcdefg1", "Must contain special characters"},
		{"everything", all, "Abcdefg1.", ""},
		{"Cyrillic", all, "Пароль7!", ""},
		{"space is special", password.Policy{Special: true}, "xqz krlm", ""},
		{"decomposed letters are not special", password.Policy{Special: true}, "cafe\u0301aulait", "Must contain special characters"},
	}
	for _, test := range tests {
		err := test.policy.Check(test.password, test.password)
		if reason(t, err) != test.want {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
		err = test.policy.Check(test.password, test.password+"x")
		if want := "Passwords don't match"; reason(t, err) != want {
			t.Errorf("%s, not repeated: %v, want %q", test.name, err, want)
		}
	}
}

func TestA18_CommonPasswords(t *testing.T) {
	t.Parallel()
	tests := []struct {
		password string
		common   bool
	}{
		{"password", true}, {"12345678", true}, {"iloveyou", true}, {"trustno1", true}, {"qwertyuiop", true},
		{"password1", true}, {"password123", true}, {"michelle", true}, {"PASSWORD", true}, {"PassWord1", true},
		{"blac\u212Ajack", true}, {"asdfjkl\u037e", true}, // the same in NFC
		{"secret123.", false}, {"Secret123.", false}, {"correct horse battery staple", false},
		{"password\n", false}, {"\npassword", false}, {"password\npassword1", false}, {"passwor\u0000", false},
		{"\x01\x01\x01\x01\x01\x01\x01\x01", false}, {"zzzzzzzzzzzzzzzzzzzzzzzzzzzzz", false}, {"~~~~~~~~", false},
	}
	for _, test := range tests {
		err := password.Policy{MinLength: 1}.Check(test.password, test.password)
		if got := reason(t, err) == "Password too common"; got != test.common {
			t.Errorf("%q: %v, want common %t", test.password, err, test.common)
		}
		if err := (password.Policy{AllowCommon: true}).Check(test.password, test.password); test.common && err != nil {
			t.Errorf("%q where common ones are allowed: %v", test.password, err)
		}
	}
}

func TestA18_WholeListIsRefused(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(password.Common(), "\n"), "\n")
	if len(lines) != 10000 || !slices.IsSorted(lines) {
		t.Fatalf("%d lines, sorted %t; want 10000, sorted", len(lines), slices.IsSorted(lines))
	}
	for _, line := range lines {
		if len(line) < 8 || line != strings.ToLower(line) {
			t.Errorf("%q is out of place", line)
		}
		if err := (password.Policy{}).Check(line, line); reason(t, err) != "Password too common" {
			t.Errorf("%q: %v", line, err)
		}
		for n := range len(line) {
			_, listed := slices.BinarySearch(lines, line[:n])
			err := password.Policy{MinLength: 1}.Check(line[:n], line[:n])
			if (reason(t, err) == "Password too common") != listed {
				t.Errorf("%q, the beginning of %q: %v, listed %t", line[:n], line, err, listed)
			}
		}
		// Neighbours that are not in the list: half a line, and a line with more at its end.
		for _, other := range []string{line[:len(line)-1] + "\x01", line + "\x7f"} {
			if err := (password.Policy{}).Check(other, other); err != nil {
				t.Errorf("%q: %v", other, err)
			}
		}
	}
}

func reason(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var policy *password.PolicyError
	if !errors.As(err, &policy) {
		t.Fatalf("%v is a %T, not a PolicyError", err, err)
	}
	if policy.Reason != err.Error() {
		t.Errorf("reason %q, error %q", policy.Reason, err)
	}
	return policy.Reason
}

func BenchmarkPolicy(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_ = password.Policy{}.Check("secret123.", "secret123.")
	}
}

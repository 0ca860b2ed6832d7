package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bedplate/bedplate"
	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/mail"
)

func TestLoadConfigAuth(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
server:
  data_dir: state
  application_name: Example
  site_url: https://app.example.com
  proxies: 2
  trusted_proxies: [10.0.0.0/8, "fd00::/8"]
auth:
  auth_token_ttl_sec: 600
  refresh_token_ttl_sec: 7200
  anonymous_refresh_token_ttl_sec: 3600
  disable_password_auth: true
  enable_otp_signin: true
  enable_anonymous_signin: true
  password_minimal_length: 12
  password_must_contain_upper_and_lower_case: true
  password_must_contain_digits: true
  password_must_contain_special_characters: true
  password_may_be_common: true
  oauth_providers:
    - name: github
      client_id: id
      client_secret: a secret
    - name: oidc0
      display_name: House
      client_id: id
      client_secret_file: secret
      issuer: https://idp.example.com
      scopes: [openid]
      trust_email: true
    - name: microsoft
      client_id: id
      client_secret: a secret
      tenant: consumers
    - name: apple
      client_id: id
      apple_team_id: TEAM567890
      apple_key_id: KEY4567890
      apple_key_file: apple.p8
  external_issuers:
    - issuer: https://tokens.example.com
      audience: [app]
      algorithms: [ES256]
      jwks_url: https://tokens.example.com/keys
  create_users_of_external_issuers: true
  custom_uri_schemes: [myapp]
  redirect_uri_allowlist: [https://other.example.com/in]
  trusted_origins: [https://admin.example.com]
  user_identifier: REQUIRE_USERNAME
  limits:
    failures: {events: 5}
    address_failures: {events: 6, per_sec: 60}
    global_failures: {events: 7, per_sec: 60, burst: 3}
    registrations: {events: 0}
    mails: {events: 8}
    address_mails: {events: 9}
    global_mails: {events: 10}
email:
  smtp_host: mail.example.com
  smtp_port: 2525
  smtp_username: app
  smtp_password_file: secret
  smtp_encryption: TLS
  sender_name: Ünïcode, "App"
  sender_address: no-reply@example.com
`, "secret", "apple.p8") // of some text
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(filepath.Dir(path), "apple.p8"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	a := conf.Auth
	var providers, issuers []string
	for _, p := range a.Providers {
		providers = append(providers, p.Provider().Name+" "+p.Provider().Display+" "+p.Provider().Issuer)
	}
	for _, i := range a.Issuers {
		issuers = append(issuers, i.Name())
	}
	if want := []string{"github GitHub https://github.com", "oidc0 House https://idp.example.com",
		"microsoft Microsoft https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0", "apple Apple https://appleid.apple.com"}; !reflect.DeepEqual(providers, want) {
		t.Errorf("providers %q, want %q", providers, want)
	}
	if want := []string{"https://tokens.example.com"}; !reflect.DeepEqual(issuers, want) {
		t.Errorf("issuers %q, want %q", issuers, want)
	}
	a.Providers, a.Issuers = nil, nil
	want := &auth.Config{
		Identifier: auth.RequireUsername, NoPasswords: true, Anonymous: true, OTP: true,
		Password:       auth.PasswordPolicy{MinLength: 12, MixedCase: true, Digits: true, Special: true, AllowCommon: true},
		AccessTTL:      10 * time.Minute,
		RefreshTTL:     2 * time.Hour,
		AnonymousTTL:   time.Hour,
		RedirectURIs:   []string{"https://other.example.com/in"},
		TrustedOrigins: []string{"https://admin.example.com"}, RedirectSchemes: []string{"myapp"},
		ProvisionUsers: true,
		Limits: auth.Limits{
			Failures:        auth.Limit{Events: 5, Per: time.Hour},
			AddressFailures: auth.Limit{Events: 6, Per: time.Minute},
			GlobalFailures:  auth.Limit{Events: 7, Per: time.Minute, Burst: 3},
			Registrations:   auth.Limit{Events: -1},
			Mails:           auth.Limit{Events: 8, Per: time.Hour},
			AddressMails:    auth.Limit{Events: 9, Per: time.Hour},
			GlobalMails:     auth.Limit{Events: 10, Per: time.Hour},
		},
	}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("auth\n%+v, want\n%+v", a, want)
	}
	if _, ok := conf.Mailer.(*mail.SMTP); !ok {
		t.Errorf("mailer %T, want SMTP", conf.Mailer)
	}

	whole := conf.backend(nil).Auth
	if whole.AppName != "Example" || whole.SiteURL != "https://app.example.com" || whole.Proxies != 2 || whole.Mailer != conf.Mailer ||
		!reflect.DeepEqual(whole.TrustedProxies, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}) ||
		whole.KeyFile != filepath.Join(filepath.Dir(path), "state", "secrets", "master.key") {
		t.Errorf("with what the file says elsewhere: %+v", whole)
	}
}

func TestLoadConfigSendmail(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, "auth: {user_identifier: ONLY_EMAIL}\nemail: {sendmail: /bin/true, sender_address: a@example.com}\n")
	conf, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := conf.Mailer.(*mail.Sendmail); !ok {
		t.Errorf("mailer %T, want sendmail", conf.Mailer)
	}
}

// As in TestLoadConfigReportsEveryMistake, for the keys of the sign-in.
func TestLoadConfigReportsEveryMistakeOfAuth(t *testing.T) {
	t.Parallel()
	const text = `
server:
  proxies: -1                                   # want a whole number from 0
  trusted_proxies: [10.0.0.1, 10.0.0.0/8]       # want a network such as 10.0.0.0/8, found "10.0.0.1"
  site_url: [x]                                 # want text, found sequence
auth:
  auth_token_ttl: 3600                          # unknown key "auth_token_ttl"
  auth_token_ttl_sec: 119                       # want a whole number from 120
  refresh_token_ttl_sec: 0                      # want a whole number from 1
  anonymous_refresh_token_ttl_sec: 1.5          # want a whole number, found 1.5
  disable_password_auth: "true"                 # want true or false, found "true"
  enable_otp_signin: 1                          # want true or false, found 1
  enable_anonymous_signin: on                   # want true or false, found "on"
  password_minimal_length: 65                   # want a whole number from 1 to 64
  password_must_contain_upper_and_lower_case: x # want true or false
  password_must_contain_digits: x               # want true or false
  password_must_contain_special_characters: x   # want true or false
  password_may_be_common: x                     # want true or false
  create_users_of_external_issuers: x           # want true or false
  custom_uri_schemes: myapp                     # want a list, found "myapp"
  redirect_uri_allowlist: [1]                   # want text, found 1
  trusted_origins: {}                           # want a list, found mapping
  user_identifier: EMAIL                        # want one of ONLY_EMAIL, ONLY_USERNAME, REQUIRE_EMAIL, REQUIRE_EMAIL_AND_USERNAME, REQUIRE_USERNAME, found "EMAIL"
  limits:
    logins: {events: 1}                         # unknown key "logins"
    failures: 5                                 # want a mapping, found 5
    address_failures: {per_sec: 5}              # a limit needs events, 0 for no limit
    global_failures: {events: -1}               # want a whole number from 0
    mails: {events: 1, per_sec: 0}              # want a whole number from 1
    address_mails: {events: 1, burst: 0}        # want a whole number from 1
  oauth_providers:
    - name: nobody                              # there is no kind "nobody"
    - name: github                              # ClientID # ClientSecret
    - name: gitlab
      client_id: id
      client_secret: a secret
      client_secret_file: nowhere               # this secret is given twice
    - client_secret_file: missing               # no such file or directory # there is no kind ""
    - just text                                 # want a mapping, found "just text"
  external_issuers:
    - issuer: https://tokens.example.com        # Audience
    - audience: app                             # want a list, found "app" # issuer "": Issuer is missing # Audience # must be a URL
email:
  smtp_host: mail.example.com                   # email needs sender_address
  smtp_port: 65536                              # want a whole number from 1 to 65535
  smtp_encryption: SSL                          # want one of NONE, STARTTLS, TLS, found "SSL"
`
	wantMistakes(t, writeConfig(t, text), text)
}

func TestLoadConfigRefusesEmail(t *testing.T) {
	t.Parallel()
	const signIn = "auth: {user_identifier: ONLY_EMAIL}\n"
	for name, tt := range map[string]struct{ text, want string }{
		"no way":          {signIn + "email: {sender_address: a@example.com}\n", ":2: email needs smtp_host or sendmail"},
		"two ways":        {signIn + "email: {smtp_host: a, sendmail: /bin/true, sender_address: a@example.com}\n", ":2: email needs smtp_host or sendmail, not both"},
		"half of SMTP":    {signIn + "email: {smtp_port: 25, sendmail: /bin/true, sender_address: a@example.com}\n", ":2: email: SMTP needs smtp_host"},
		"no sendmail":     {signIn + "email: {sendmail: /bin/nowhere, sender_address: a@example.com}\n", ":2: configuring sendmail: the program: "},
		"in the clear":    {signIn + "email: {smtp_host: mail.example.com, smtp_encryption: NONE, sender_address: a@example.com}\n", ":2: "},
		"not an address":  {signIn + "email: {smtp_host: mail.example.com, sender_address: example.com}\n", ":2: "},
		"without sign-in": {"email: {smtp_host: mail.example.com, sender_address: a@example.com}\n", ":1: email is sent for the sign-in, but there is no auth"},
		"nothing":         {"auth:\n", ":1: want a mapping, found nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := loadConfig(writeConfig(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), "config.yaml"+tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

// What only the library can judge has its line too.
func TestLibraryMistakesHaveLines(t *testing.T) {
	t.Parallel()
	path := writeConfig(t, `
server:
  site_url: https://app.example.com/path
  data_dir: state
auth:
  custom_uri_schemes:
    - javascript
  redirect_uri_allowlist: [/relative]
  trusted_origins:
    - https://app.example.com/path
  oauth_providers:
    - {name: github, client_id: id, client_secret: s}
    - {name: github, client_id: id, client_secret: s}
  external_issuers:
    - {issuer: "https://tokens.example.com", audience: [a]}
    - {issuer: "https://tokens.example.com", audience: [b]}
`)
	open := func(c serveCommand) string {
		c.Config = path
		conf, err := c.settings()
		if err != nil {
			t.Fatal(err)
		}
		if err := conf.makeDirectories(); err != nil {
			t.Fatal(err)
		}
		b, err := bedplate.Open(t.Context(), conf.backend(nil))
		if err == nil {
			b.Close()
			t.Fatal("no error")
		}
		return conf.locate(err).Error()
	}
	got := open(serveCommand{})
	for _, want := range []string{
		`:3: auth: SiteURL "https://app.example.com/path"`,
		`:7: auth: redirect scheme "javascript"`,
		`:8: auth: redirect URI "/relative"`,
		`:10: auth: trusted origin`,
		`:13: auth: provider "github" is listed twice`,
		`:16: auth: issuer "https://tokens.example.com" is without a name or listed twice`,
	} {
		if !strings.Contains(got, path+want) {
			t.Errorf("no %s%s in\n%s", path, want, got)
		}
	}
	if got := open(serveCommand{SiteURL: "app.example.com"}); !strings.Contains(got, path+`: auth: SiteURL "app.example.com"`) {
		t.Errorf("a mistake in a flag is not one in the file:\n%s", got)
	}
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		write(t, path, text)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, mode := range []os.FileMode{0o600, 0o400, 0o440, 0o640} {
		if got, err := readSecret(file("good"+mode.String(), " a secret\n", mode)); got != "a secret" || err != nil {
			t.Errorf("mode %v: %q, %v", mode, got, err)
		}
	}
	for name, tt := range map[string]struct{ path, want string }{
		"readable by all":   {file("a", "top secret", 0o604), "has mode 0604"},
		"the usual mode":    {file("b", "top secret", 0o644), "has mode 0644"},
		"writable by all":   {file("c", "top secret", 0o602), "has mode 0602"},
		"writable by group": {file("d", "top secret", 0o620), "has mode 0620"},
		"empty":             {file("e", " \n", 0o600), "is empty"},
		"large":             {file("f", strings.Repeat("x", maxSecret+1), 0o600), "is larger"},
		"missing":           {filepath.Join(dir, "g"), "no such file"},
		"directory":         {dir, "is not a file"},
		"device":            {"/dev/null", "is not a file"},
	} {
		_, err := readSecret(tt.path)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "top secret") {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}

	// The mistake has the line of the key.
	path := writeConfig(t, "auth:\n  oauth_providers:\n    - name: github\n      client_id: id\n      client_secret_file: secret\n")
	open := filepath.Join(filepath.Dir(path), "secret")
	write(t, open, "x")
	if err := os.Chmod(open, 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if _, err := loadConfig(path); err == nil || !strings.Contains(err.Error(), path+":5: read a secret: "+open+" has mode 0644") {
		t.Errorf("error %v", err)
	}
}

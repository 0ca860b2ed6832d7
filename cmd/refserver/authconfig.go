package main

import (
	"fmt"
	"math"
	netmail "net/mail"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/bedplate/bedplate/auth"
	"github.com/bedplate/bedplate/auth/idp"
	"github.com/bedplate/bedplate/auth/mail"
)

// auth reads the sign-in. Mistakes that the library finds name the field of
// auth.Config.
func (r *configReader) auth(n ast.Node) {
	c := &auth.Config{}
	var access, refresh, anonymous, least int64
	if !r.object(n, object{
		"auth_token_ttl_sec":                         r.integer(&access, 120, math.MaxInt32),
		"refresh_token_ttl_sec":                      r.integer(&refresh, 1, math.MaxInt32),
		"anonymous_refresh_token_ttl_sec":            r.integer(&anonymous, 1, math.MaxInt32),
		"disable_password_auth":                      r.flag(&c.NoPasswords),
		"enable_otp_signin":                          r.flag(&c.OTP),
		"enable_anonymous_signin":                    r.flag(&c.Anonymous),
		"password_minimal_length":                    r.integer(&least, 1, 64),
		"password_must_contain_upper_and_lower_case": r.flag(&c.Password.MixedCase),
		"password_must_contain_digits":               r.flag(&c.Password.Digits),
		"password_must_contain_special_characters":   r.flag(&c.Password.Special),
		"password_may_be_common":                     r.flag(&c.Password.AllowCommon),
		"oauth_providers":                            r.each(r.provider(c)),
		"external_issuers":                           r.each(r.issuer(c)),
		"create_users_of_external_issuers":           r.flag(&c.ProvisionUsers),
		"custom_uri_schemes":                         r.at("redirect scheme", r.texts(&c.RedirectSchemes)),
		"redirect_uri_allowlist":                     r.at("redirect URI", r.texts(&c.RedirectURIs)),
		"trusted_origins":                            r.at("trusted origin", r.texts(&c.TrustedOrigins)),
		"user_identifier":                            choice(r.document, &c.Identifier, identifiers),
		"limits":                                     r.limits(&c.Limits),
	}) {
		return
	}
	c.AccessTTL, c.RefreshTTL, c.AnonymousTTL = seconds(access), seconds(refresh), seconds(anonymous)
	c.Password.MinLength = int(least)
	r.Auth = c
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

var identifiers = map[string]auth.Identifier{
	"ONLY_EMAIL": auth.OnlyEmail, "REQUIRE_EMAIL": auth.RequireEmail, "ONLY_USERNAME": auth.OnlyUsername,
	"REQUIRE_USERNAME": auth.RequireUsername, "REQUIRE_EMAIL_AND_USERNAME": auth.RequireEmailAndUsername,
}

// limits reads limits such as "mails: {events: 5, per_sec: 3600}"; events: 0
// stands for no limit.
func (r *configReader) limits(to *auth.Limits) func(ast.Node) {
	limit := func(to *auth.Limit) func(ast.Node) {
		return func(n ast.Node) {
			events, per, burst := int64(-1), int64(3600), int64(0)
			before := len(r.mistakes)
			r.object(n, object{
				"events":  r.integer(&events, 0, math.MaxInt32),
				"per_sec": r.integer(&per, 1, math.MaxInt32),
				"burst":   r.integer(&burst, 1, math.MaxInt32),
			})
			switch {
			case len(r.mistakes) > before:
			case events < 0:
				r.mistake(n, "a limit needs events, 0 for no limit")
			case events == 0:
				*to = auth.Limit{Events: -1}
			default:
				*to = auth.Limit{Events: int(events), Per: seconds(per), Burst: int(burst)}
			}
		}
	}
	return func(n ast.Node) {
		r.object(n, object{
			"failures":         limit(&to.Failures),
			"second_factors":   limit(&to.SecondFactors),
			"address_failures": limit(&to.AddressFailures),
			"global_failures":  limit(&to.GlobalFailures),
			"registrations":    limit(&to.Registrations),
			"mails":            limit(&to.Mails),
			"address_mails":    limit(&to.AddressMails),
			"global_mails":     limit(&to.GlobalMails),
		})
	}
}

// provider reads an identity provider: one of the known kinds, or oidc0 with
// an issuer or with three URLs.
func (r *configReader) provider(to *auth.Config) func(ast.Node) {
	return func(n ast.Node) {
		var c idp.Config
		var appleKey string
		secret, secretFile := r.secret(&c.ClientSecret)
		_, appleKeyFile := r.secret(&appleKey)
		if !r.object(n, object{
			"name":                    r.text(&c.Kind),
			"display_name":            r.text(&c.DisplayName),
			"client_id":               r.text(&c.ClientID),
			"client_secret":           secret,
			"client_secret_file":      secretFile,
			"issuer":                  r.text(&c.Issuer),
			"auth_url":                r.text(&c.AuthURL),
			"token_url":               r.text(&c.TokenURL),
			"user_api_url":            r.text(&c.UserURL),
			"scopes":                  r.texts(&c.Scopes),
			"tenant":                  r.text(&c.Tenant),
			"apple_team_id":           r.text(&c.Apple.TeamID),
			"apple_key_id":            r.text(&c.Apple.KeyID),
			"apple_key_file":          appleKeyFile,
			"trust_email":             r.flag(&c.TrustEmail),
			"allow_private_addresses": r.flag(&c.AllowPrivateAddresses),
		}) {
			return
		}
		if appleKey != "" {
			c.Apple.PrivateKey = []byte(appleKey)
		}
		p, err := idp.New(c)
		if err != nil {
			r.refused(n, err)
			return
		}
		r.places[fmt.Sprintf("provider %q", c.Kind)] = lineOf(n)
		to.Providers = append(to.Providers, p)
	}
}

// issuer reads an issuer of bearer tokens.
func (r *configReader) issuer(to *auth.Config) func(ast.Node) {
	return func(n ast.Node) {
		var c idp.IssuerConfig
		if !r.object(n, object{
			"issuer":                  r.text(&c.Issuer),
			"audience":                r.texts(&c.Audience),
			"algorithms":              r.texts(&c.Algorithms),
			"jwks_url":                r.text(&c.JWKSURL),
			"jwks_file":               r.path(&c.JWKSFile),
			"allow_private_addresses": r.flag(&c.AllowPrivateAddresses),
		}) {
			return
		}
		i, err := idp.NewIssuer(c)
		if err != nil {
			r.refused(n, err)
			return
		}
		r.places[fmt.Sprintf("issuer %q", c.Issuer)] = lineOf(n)
		to.Issuers = append(to.Issuers, i)
	}
}

// email reads how mails are sent: by SMTP or by sendmail.
func (r *configReader) email(n ast.Node) {
	var smtp mail.SMTPConfig
	var sendmail mail.SendmailConfig
	var port int64
	var sender netmail.Address
	password, passwordFile := r.secret(&smtp.Password)
	if !r.object(n, object{
		"smtp_host":          r.text(&smtp.Host),
		"smtp_port":          r.integer(&port, 1, 65535),
		"smtp_username":      r.text(&smtp.Username),
		"smtp_password":      password,
		"smtp_password_file": passwordFile,
		"smtp_encryption":    choice(r.document, &smtp.Encryption, encryptions),
		"sendmail":           r.text(&sendmail.Path),
		"sender_name":        r.text(&sender.Name),
		"sender_address":     r.text(&sender.Address),
	}) {
		return
	}
	smtp.Port = int(port)
	var err error
	switch {
	case sender.Address == "":
		r.mistake(n, "email needs sender_address")
	case smtp.Host != "" && sendmail.Path != "":
		r.mistake(n, "email needs smtp_host or sendmail, not both")
	case smtp.Host != "":
		smtp.From = sender.String()
		r.Mailer, err = mail.NewSMTP(smtp)
	case smtp != mail.SMTPConfig{}:
		r.mistake(n, "email: SMTP needs smtp_host")
	case sendmail.Path != "":
		sendmail.From = sender.String()
		r.Mailer, err = mail.NewSendmail(sendmail)
	default:
		r.mistake(n, "email needs smtp_host or sendmail")
	}
	if err != nil {
		r.refused(n, err)
	}
	r.checks = append(r.checks, func() {
		if r.Auth == nil {
			r.mistake(n, "email is sent for the sign-in, but there is no auth")
		}
	})
}

var encryptions = map[string]mail.Encryption{
	"STARTTLS": mail.StartTLS, "TLS": mail.ImplicitTLS, "NONE": mail.None,
}

// secret reads a secret that is given under one of two keys: itself, or the
// name of a file that holds it.
func (r *configReader) secret(to *string) (inline, file func(ast.Node)) {
	given := false
	once := func(read func(ast.Node)) func(ast.Node) {
		return func(n ast.Node) {
			if given {
				r.mistake(n, "this secret is given twice, by itself and by a file")
				return
			}
			given = true
			read(n)
		}
	}
	text := func(n ast.Node) {
		switch n := n.(type) {
		case *ast.StringNode:
			*to = n.Value
		case *ast.LiteralNode:
			*to = n.Value.Value
		default: // not what was found, which may be the secret
			r.mistake(n, "want text in quotes")
		}
	}
	return once(text), once(func(n ast.Node) {
		var path string
		r.path(&path)(n)
		if path == "" {
			return
		}
		secret, err := readSecret(path)
		if err != nil {
			r.mistake(n, "read a secret: %v", err)
			return
		}
		*to = secret
	})
}

const maxSecret = 64 << 10 // bytes

// readSecret returns what is in a file, without the space around it. The file
// must be one that only its owner can write, and only owner and group can
// read.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", path)
	}
	if mode := info.Mode().Perm(); mode&0o026 != 0 {
		return "", fmt.Errorf("%s has mode %#o, which lets others at it: change that to 0600 or 0640", path, mode)
	}
	if info.Size() > maxSecret {
		return "", fmt.Errorf("%s is larger than %d bytes", path, maxSecret)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}

// prefixes reads a list of networks.
func (r *configReader) prefixes(to *[]netip.Prefix) func(ast.Node) {
	return r.each(func(n ast.Node) {
		var s string
		r.text(&s)(n)
		p, err := netip.ParsePrefix(s)
		if err != nil {
			r.mistake(n, "want a network such as 10.0.0.0/8, found %q", s)
			return
		}
		*to = append(*to, p)
	})
}

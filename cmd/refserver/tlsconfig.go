package main

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/goccy/go-yaml/ast"
)

// tlsConfig says how the server speaks HTTPS.
type tlsConfig struct {
	Mode            tlsMode
	Cert, Key       string // files, in modeFiles
	FilesInterval   time.Duration
	RedirectAddress string // of a listener that sends clients to HTTPS; "": there is none
	HSTS            time.Duration
	ClientCA        string
	ClientAuth      clientAuth
	RequireReady    time.Duration // how long the server may be unready for want of certificates

	ACME acmeConfig // in modeACME

	given map[string]int // line in the file by the name of the flag; 0: it was not given there
}

// acmeConfig says what is ordered, and where.
type acmeConfig struct {
	Names     [][]string // those of each certificate
	Email     string
	Directory string
	Staging   string // directory for dry runs; "": Let's Encrypt's, if Directory is one of Let's Encrypt
	CAFile    string
	Profile   string
	Challenge string // "": whatever is possible
	EABKeyID  string
	EABFile   string
	AgreeTOS  bool
}

// A tlsMode is where certificates are from.
type tlsMode string

const (
	modeOff        tlsMode = "off" // there is no HTTPS
	modeFiles      tlsMode = "files"
	modeACME       tlsMode = "acme"
	modeSelfSigned tlsMode = "selfsigned"
)

// A clientAuth says whether clients need a certificate.
type clientAuth string

const (
	clientAuthOptional clientAuth = "optional"
	clientAuthRequire  clientAuth = "require"
)

func (a clientAuth) policy() tls.ClientAuthType {
	switch a {
	case clientAuthOptional:
		return tls.VerifyClientCertIfGiven
	case clientAuthRequire:
		return tls.RequireAndVerifyClientCert
	}
	return tls.NoClientCert
}

// tlsFlags are the flags of all commands that need to know of certificates, or else their environment
// variables.
type tlsFlags struct {
	TLSMode         string      `name:"tls-mode" env:"BEDPLATE_TLS_MODE" placeholder:"MODE" help:"Where certificates are from: off, files, acme or selfsigned (${env}; default files if secrets/certs in the data directory has cert.pem and key.pem, or else off)."`
	TLSCert         string      `name:"tls-cert" env:"BEDPLATE_TLS_CERT" placeholder:"FILE" help:"Certificate with its intermediates, in PEM (${env}; default secrets/certs/cert.pem in the data directory)."`
	TLSKey          string      `name:"tls-key" env:"BEDPLATE_TLS_KEY" placeholder:"FILE" help:"Its private key, in PEM (${env}; default secrets/certs/key.pem in the data directory)."`
	RedirectAddress string      `name:"http-redirect-address" env:"BEDPLATE_HTTP_REDIRECT_ADDRESS" placeholder:"ADDR" help:"Listen there, too, and send clients to HTTPS. ACME's challenge http-01 is answered there (${env}; default none)."`
	ClientCA        string      `name:"tls-client-ca" env:"BEDPLATE_TLS_CLIENT_CA" placeholder:"FILE" help:"Authorities of clients' certificates, in PEM (${env}; default none: no client is asked for one)."`
	ClientAuth      string      `name:"tls-client-auth" env:"BEDPLATE_TLS_CLIENT_AUTH" placeholder:"HOW" help:"With --tls-client-ca: require a certificate, or optional (${env}; default require)."`
	RequireReady    readyWithin `name:"tls-require-ready" env:"BEDPLATE_TLS_REQUIRE_READY" placeholder:"DURATION" help:"Do not be ready until each name has a certificate of its authority, but for this long at most, 60s without a value; =2m for another (${env}; default do not wait)."`
	Domains         []string    `name:"acme-domains" env:"BEDPLATE_ACME_DOMAINS" placeholder:"NAME" help:"Names to order a certificate for, each; repeatable (${env})."`
	Email           string      `name:"acme-email" env:"BEDPLATE_ACME_EMAIL" placeholder:"ADDRESS" help:"Where the authority may write to (${env})."`
	Directory       string      `name:"acme-directory" env:"BEDPLATE_ACME_DIRECTORY" placeholder:"URL" help:"The authority: letsencrypt, letsencrypt-staging or the URL of a directory (${env}; default letsencrypt)."`
	CAFile          string      `name:"acme-ca-file" env:"BEDPLATE_ACME_CA_FILE" placeholder:"FILE" help:"Roots of the authority's own server, in PEM (${env}; default those of the system)."`
	Profile         string      `name:"acme-profile" env:"BEDPLATE_ACME_PROFILE" placeholder:"NAME" help:"Profile of the certificates (${env}; default that of the authority)."`
	Challenge       string      `name:"acme-challenge" env:"BEDPLATE_ACME_CHALLENGE" placeholder:"TYPE" help:"How names are proved: tls-alpn-01 or http-01 (${env}; default whatever works)."`
	EABKeyID        string      `name:"acme-eab-kid" env:"BEDPLATE_ACME_EAB_KID" placeholder:"ID" help:"Account at the authority to bind to, where that is demanded (${env})."`
	EABFile         string      `name:"acme-eab-hmac-file" env:"BEDPLATE_ACME_EAB_HMAC_FILE" placeholder:"FILE" help:"Its key, in base64url (${env})."`
	AgreeTOS        bool        `name:"acme-agree-tos" env:"BEDPLATE_ACME_AGREE_TOS" help:"Agree to the authority's terms of service (${env})."`
}

// readyWithin is a flag that can do without its value.
type readyWithin time.Duration

const defaultReadyWithin = 60 * time.Second

func (r *readyWithin) IsBool() bool { return true }

func (r *readyWithin) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		*r = readyWithin(defaultReadyWithin)
		return nil
	}
	text := fmt.Sprint(ctx.Scan.Pop().Value)
	if text == "" { // an empty variable
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return errors.New("want a length of time such as 30s or 2m")
	}
	*r = readyWithin(d)
	return nil
}

// tls reads the section of that name.
func (r *configReader) tls(n ast.Node) {
	t := &r.TLS
	t.given = map[string]int{}
	at := func(flag string, read func(ast.Node)) func(ast.Node) {
		return func(n ast.Node) {
			t.given[flag] = lineOf(n)
			read(n)
		}
	}
	r.object(n, object{
		"mode": at("tls-mode", choice(r.document, &t.Mode, words(modeOff, modeFiles, modeACME, modeSelfSigned))),
		"cert": at("tls-cert", r.path(&t.Cert)),
		"key":  at("tls-key", r.path(&t.Key)),

		"files_interval":        r.duration(&t.FilesInterval),
		"http_redirect_address": at("http-redirect-address", r.text(&t.RedirectAddress)),
		"hsts":                  at(hstsSetting, r.duration(&t.HSTS)),
		"client_ca":             at("tls-client-ca", r.path(&t.ClientCA)),
		"client_auth":           at("tls-client-auth", choice(r.document, &t.ClientAuth, words(clientAuthOptional, clientAuthRequire))),
		"require_ready":         at("tls-require-ready", r.duration(&t.RequireReady)),
		"acme": func(n ast.Node) {
			r.object(n, object{
				"domains":       at("acme-domains", r.certificateNames(&t.ACME.Names)),
				"email":         at("acme-email", r.text(&t.ACME.Email)),
				"directory":     at("acme-directory", r.text(&t.ACME.Directory)),
				"staging":       at(stagingSetting, r.text(&t.ACME.Staging)),
				"ca_file":       at("acme-ca-file", r.path(&t.ACME.CAFile)),
				"profile":       at("acme-profile", r.text(&t.ACME.Profile)),
				"challenge":     at("acme-challenge", r.text(&t.ACME.Challenge)),
				"eab_kid":       at("acme-eab-kid", r.text(&t.ACME.EABKeyID)),
				"eab_hmac_file": at("acme-eab-hmac-file", r.path(&t.ACME.EABFile)),
				"agree_tos":     at("acme-agree-tos", r.flag(&t.ACME.AgreeTOS)),
			})
		},
	})
}

// These have no flags.
const (
	hstsSetting    = "hsts"
	stagingSetting = "acme-staging"
)

func words[T ~string](all ...T) map[string]T {
	m := map[string]T{}
	for _, word := range all {
		m[string(word)] = word
	}
	return m
}

// certificateNames reads a list of names, with a list in it for a certificate of several.
func (r *configReader) certificateNames(to *[][]string) func(ast.Node) {
	return r.each(func(n ast.Node) {
		var names []string
		if _, ok := n.(*ast.SequenceNode); ok {
			if r.texts(&names)(n); len(names) == 0 {
				r.mistake(n, "a certificate needs a name")
				return
			}
		} else {
			names = make([]string, 1)
			r.text(&names[0])(n)
		}
		*to = append(*to, names)
	})
}

// applyTLS overrides what the configuration file says, and reports all mistakes that are in the result.
func (f *tlsFlags) applyTLS(conf *config) error {
	t := &conf.TLS
	if t.given == nil {
		t.given = map[string]int{}
	}
	mine := map[string]bool{}
	note := func(flag string, given bool) bool {
		if given {
			t.given[flag], mine[flag] = 0, true
		}
		return given
	}
	text := func(flag string, to *string, given string) {
		if note(flag, given != "") {
			*to = given
		}
	}
	text("tls-mode", (*string)(&t.Mode), f.TLSMode)
	text("tls-cert", &t.Cert, f.TLSCert)
	text("tls-key", &t.Key, f.TLSKey)
	text("http-redirect-address", &t.RedirectAddress, f.RedirectAddress)
	text("tls-client-ca", &t.ClientCA, f.ClientCA)
	text("tls-client-auth", (*string)(&t.ClientAuth), f.ClientAuth)
	if note("tls-require-ready", f.RequireReady > 0) {
		t.RequireReady = time.Duration(f.RequireReady)
	}
	if note("acme-domains", len(f.Domains) > 0) {
		t.ACME.Names = nil
		for _, name := range f.Domains {
			t.ACME.Names = append(t.ACME.Names, []string{name})
		}
	}
	t.ACME.plainNames()
	text("acme-email", &t.ACME.Email, f.Email)
	text("acme-directory", &t.ACME.Directory, f.Directory)
	text("acme-ca-file", &t.ACME.CAFile, f.CAFile)
	text("acme-profile", &t.ACME.Profile, f.Profile)
	text("acme-challenge", &t.ACME.Challenge, f.Challenge)
	text("acme-eab-kid", &t.ACME.EABKeyID, f.EABKeyID)
	text("acme-eab-hmac-file", &t.ACME.EABFile, f.EABFile)
	if note("acme-agree-tos", f.AgreeTOS) {
		t.ACME.AgreeTOS = true
	}
	return errors.Join(conf.resolveTLS(mine), conf.checkTLS())
}

// resolveTLS finds out where certificates are from. flags are those that were given.
func (conf *config) resolveTLS(flags map[string]bool) error {
	t := &conf.TLS
	cert, key := conf.defaultPair()
	switch t.Mode {
	case "":
		if t.Cert == "" && t.Key == "" {
			return conf.resolveDefaultPair(cert, key)
		}
		t.Mode = modeFiles
	case modeOff, modeACME, modeSelfSigned:
	case modeFiles:
		if t.Cert == "" && t.Key == "" {
			t.Cert, t.Key = cert, key
		}
	default:
		err := conf.tlsMistake("tls-mode", "%q is none of off, files, acme and selfsigned", string(t.Mode))
		t.Mode = modeOff
		return err
	}
	if t.Mode == modeOff {
		return nil
	}
	// What the file says of other modes is kept there, so that a flag can choose the mode.
	var errs []error
	for flag := range flags {
		for prefix, mode := range map[string]tlsMode{"acme-": modeACME, "tls-cert": modeFiles, "tls-key": modeFiles} {
			if strings.HasPrefix(flag, prefix) && t.Mode != mode {
				errs = append(errs, conf.tlsMistake(flag, "the mode is %s, and this is for %s", t.Mode, mode))
			}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// resolveDefaultPair is for when nothing says where certificates are from.
func (conf *config) resolveDefaultPair(cert, key string) error {
	t := &conf.TLS
	certErr, keyErr := exists(cert), exists(key)
	switch {
	case certErr == nil && keyErr == nil:
		t.Mode, t.Cert, t.Key = modeFiles, cert, key
	case certErr == nil && errors.Is(keyErr, fs.ErrNotExist):
		return fmt.Errorf("tls: there is %s, but no key.pem beside it: both are needed, or --tls-mode off", cert)
	case keyErr == nil && errors.Is(certErr, fs.ErrNotExist):
		return fmt.Errorf("tls: there is %s, but no cert.pem beside it: both are needed, or --tls-mode off", key)
	case !errors.Is(certErr, fs.ErrNotExist):
		return fmt.Errorf("tls: look for a certificate: %w", cmp.Or(certErr, keyErr))
	default:
		t.Mode = modeOff
	}
	for flag := range t.given {
		if t.Mode == modeOff || strings.HasPrefix(flag, "acme-") {
			return conf.tlsMistake(t.firstGiven(), "a mode is needed: --tls-mode, or tls.mode in the configuration file")
		}
	}
	return nil
}

func exists(path string) error {
	_, err := os.Stat(path)
	return err
}

// defaultPair is where certificates are looked for.
func (conf *config) defaultPair() (cert, key string) {
	dir := filepath.Join(conf.DataDir, "secrets", "certs")
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// firstGiven is the setting that comes first in the file, or among the flags.
func (t *tlsConfig) firstGiven() string {
	var all []string
	for flag := range t.given {
		all = append(all, flag)
	}
	slices.SortFunc(all, func(a, b string) int { return cmp.Or(cmp.Compare(t.given[a], t.given[b]), cmp.Compare(a, b)) })
	return all[0]
}

// on reports whether there is HTTPS.
func (t *tlsConfig) on() bool { return t.Mode != modeOff && t.Mode != "" }

func (t *tlsConfig) scheme() string {
	if t.on() {
		return "https"
	}
	return "http"
}

// tlsMistake is one in the setting with the name of a flag.
func (conf *config) tlsMistake(flag, format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if line := conf.TLS.given[flag]; line > 0 {
		return fmt.Errorf("%s:%d: tls: %s", conf.file, line, text)
	}
	return fmt.Errorf("--%s: %s", flag, text)
}

package tlsauto

import (
	"fmt"
	"strings"
)

// trustHint is the text of DevCA.TrustHint for an operating system as runtime.GOOS names it.
func trustHint(system, path, name string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	quoted := shellQuote(path)

	line("The certificates of this server come from a development root of its own. Clients refuse them until they")
	line("trust that root, which can vouch for local and private names alone:")
	line("")
	switch system {
	case "darwin":
		line("  Safari, Chrome, curl:  security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db %s", quoted)
	case "windows":
		quoted = `"` + path + `"` // a path there has no quotation marks
		line("  Edge, Chrome, curl:    certutil -user -addstore Root %s", quoted)
	default:
		if system == "linux" {
			line("  Debian, Ubuntu:        sudo install -m 644 %s %s && sudo update-ca-certificates", quoted, shellQuote("/usr/local/share/ca-certificates/"+fileName(name)+".crt"))
			line("  Fedora, Arch:          sudo trust anchor %s", quoted)
		}
		line("  Chrome:                certutil -d sql:\"$HOME/.pki/nssdb\" -A -t C,, -n %s -i %s", shellQuote(name), quoted)
	}
	line("  Firefox:               Settings, Certificates, Authorities, Import: %s", quoted)
	line("  one request alone:     curl --cacert %s https://localhost:PORT/", quoted)
	line("  Node.js:               the environment variable NODE_EXTRA_CA_CERTS with %s", quoted)
	return b.String()
}

// shellQuote makes one word for a Unix shell of anything.
func shellQuote(s string) string {
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-", r))
	}
	if s != "" && !strings.ContainsFunc(s, odd) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// fileName is a name without what is awkward in one.
func fileName(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "-")) }

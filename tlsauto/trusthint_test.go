package tlsauto

import (
	"strings"
	"testing"
)

func TestTrustHint(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		system, path string
		want         []string
	}{
		{"linux", "/home/ada/certs/root.pem", []string{
			"sudo install -m 644 /home/ada/certs/root.pem /usr/local/share/ca-certificates/development-root.crt && sudo update-ca-certificates\n",
			"sudo trust anchor /home/ada/certs/root.pem\n",
			`certutil -d sql:"$HOME/.pki/nssdb" -A -t C,, -n 'Development root' -i /home/ada/certs/root.pem` + "\n",
		}},
		{"linux", "/home/a b/$(reboot)/it's/root.pem", []string{`sudo trust anchor '/home/a b/$(reboot)/it'\''s/root.pem'` + "\n"}},
		{"darwin", "/Users/ada/root.pem", []string{"security add-trusted-cert -r trustRoot -k ~/Library/Keychains/login.keychain-db /Users/ada/root.pem\n"}},
		{"windows", `C:\Users\ada l\root.pem`, []string{`certutil -user -addstore Root "C:\Users\ada l\root.pem"` + "\n"}},
		{"freebsd", "/root.pem", []string{"curl --cacert /root.pem https://localhost:PORT/\n"}},
	} {
		got := trustHint(tt.system, tt.path, "Development root")
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("on %s, %q is missing in:\n%s", tt.system, want, got)
			}
		}
	}
}

package tlsauto_test

import (
	"crypto/tls"
	"path/filepath"
	"testing"
	"time"

	"github.com/bedplate/bedplate/tlsauto"
)

// A file that is being written may have a certificate that is good, but not yet all that belongs to it.
func TestFilesHalfWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newTestCA(t, "files")
		f := filesIn(t.TempDir())
		writePair(t, f, ca.issue(t, nil, fileHost))
		m, events := runManager(t, tlsauto.Config{Files: []tlsauto.Files{f}, FilesInterval: time.Hour})
		pass(time.Minute)

		next := ca.issue(t, nil, fileHost)
		writePair(t, f, testPair{cert: certPEM(next.leaf), key: next.key})
		m.Reload()
		pass(0)
		m.Reload() // which makes no second look of the first
		pass(time.Second / 2)
		writePair(t, f, next)
		for _, tt := range []struct {
			after time.Duration
			want  int // reloads
		}{{time.Second - time.Millisecond, 0}, {time.Second, 1}, {time.Minute, 1}} {
			pass(tt.after)
			cert, err := m.GetCertificate(&tls.ClientHelloInfo{ServerName: fileHost})
			if err != nil || len(cert.Certificate) != 2 || cert.Leaf.Equal(next.leaf) != (tt.want > 0) {
				t.Errorf("after %v more: %v, %v", tt.after, cert, err)
			}
			if got := len(events.of(tlsauto.Reloaded)); got != tt.want {
				t.Errorf("after %v more: %d reloads, want %d", tt.after, got, tt.want)
			}
		}
		for _, kind := range []tlsauto.EventKind{tlsauto.Doubtful, tlsauto.ReloadFailed} {
			if got := events.of(kind); len(got) > 0 {
				t.Errorf("%+v", got)
			}
		}
	})
}

func TestClientCAsHalfWritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		dir := t.TempDir()
		writePair(t, filesIn(dir), newTestCA(t, "server").issue(t, nil, fileHost))
		first, second := newTestCA(t, "first"), newTestCA(t, "second")
		caFile := filepath.Join(dir, "clients.pem")
		writeFile(t, caFile, bundleOf(first))
		m, events := runManager(t, tlsauto.Config{
			Files: []tlsauto.Files{filesIn(dir)}, FilesInterval: time.Hour, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAFile: caFile,
		})
		pass(time.Minute)

		writeFile(t, caFile, bundleOf(second))
		m.Reload()
		pass(time.Second / 2)
		writeFile(t, caFile, bundleOf(second, first))
		pass(time.Second - time.Millisecond)
		if got := events.of(tlsauto.Reloaded); len(got) > 0 {
			t.Errorf("half of the authorities count: %+v", got)
		}
		pass(time.Second)
		if got := events.of(tlsauto.Reloaded); len(got) != 1 {
			t.Errorf("%d reloads, want 1", len(got))
		}
	})
}

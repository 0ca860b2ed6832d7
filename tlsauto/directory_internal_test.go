package tlsauto

import (
	"net/http"
	"testing"
	"time"
)

func TestPollIsLimited(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for says, want := range map[string]string{
		"":                            "",
		"0":                           "1",
		"-5":                          "1",
		"7":                           "7",
		"3600":                        "60",
		"999999999999999999999999999": "1",
		"soon":                        "1",
		now.Add(-time.Hour).Format(http.TimeFormat):      "1",
		now.Add(9 * time.Second).Format(http.TimeFormat): "9",
		now.Add(24 * time.Hour).Format(http.TimeFormat):  "60",
	} {
		h := http.Header{"Date": {now.Format(http.TimeFormat)}}
		if says != "" {
			h.Set("Retry-After", says)
		}
		limitPoll(h)
		if got := h.Get("Retry-After"); got != want {
			t.Errorf("Retry-After %q became %q, want %q", says, got, want)
		}
	}
}

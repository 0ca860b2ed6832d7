package realtime

import (
	"github.com/bedplate/bedplate/internal/openapi"
)

// OpenAPI returns the paths of an OpenAPI document (version 3.1.0), for
// [Service.ServeChannel] at {prefix}/{channel} and [Service.ServeTicket] at
// {prefix}/ticket. Users are known by one of the requirement objects in
// security, which can be nil. Refusals are #/components/responses/{status},
// which is for the rest of the document to define.
func OpenAPI(prefix string, security []any) (paths map[string]any) {
	channel := openapi.Operation("realtime.channel", "Events of a channel, as they happen",
		[]any{
			openapi.Path("channel", "name of the channel", openapi.Text()),
			openapi.Header("Last-Event-ID", "id of the last event that was seen, to go on from"),
			openapi.Query("last_event_id", "the same", openapi.Text()),
			openapi.Query("since", "the same", openapi.Text()),
			openapi.Query("ticket", "instead of other credentials", openapi.Text()),
		},
		openapi.Response(map[string]any{"text/event-stream": map[string]any{"schema": openapi.Text()}}, nil), 400, 401, 403, 503)
	answer := map[string]any{
		"type": "object", "required": []string{"ticket"}, "properties": map[string]any{"ticket": openapi.Text()},
	}
	ticket := openapi.Operation("realtime.ticket", "Ticket for one stream within 30 seconds, for pages of another origin",
		nil, openapi.Response(openapi.JSON(answer), nil), 401, 403, 503)
	if security != nil {
		channel["security"] = append([]any{map[string]any{}}, security...)
		ticket["security"] = security
	}
	channel["tags"], ticket["tags"] = []string{"realtime"}, []string{"realtime"}
	return map[string]any{
		prefix + "/{channel}": map[string]any{"get": channel},
		prefix + "/ticket":    map[string]any{"post": ticket},
	}
}

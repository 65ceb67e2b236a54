{{- /* What the ScaledObject asks. Each gives one number over all servers, which is divided by their count: 0 at rest,
nothing if there is no server, never NaN. docs/kubernetes.md derives them. */}}

{{- /* Milliseconds that one server would need for all that is queued, at the rate of a device that works. */}}
{{- define "packlight.query.backlog" -}}
1000 * sum(packlight_queue_tokens{ {{- .selector -}} })
/ (
  sum(rate(packlight_tokens_total{ {{- .selector -}} , kind!="padding"}[5m]))
  / sum(rate(packlight_stage_seconds_sum{ {{- .selector -}} , stage="forward"}[5m]))
  > 0
  or vector({{ int64 .assumed }})
) / {{ .devices }}
{{- end }}

{{- /* The time in milliseconds that 95 of 100 requests wait no longer than for their pack, once for each server. */}}
{{- define "packlight.query.queue" -}}
1000 * count(packlight_queue_tokens{ {{- .selector -}} })
* (
  histogram_quantile(0.95, sum by (le) (rate(packlight_stage_seconds_bucket{ {{- .selector -}} , stage="queue"}[2m])))
  >= 0
  or 0 * sum(packlight_queue_tokens{ {{- .selector -}} })
)
{{- end }}

{{- /* The percentage of the time that devices work, summed over the servers. `and`: a rate outlives its server by two
minutes. */}}
{{- define "packlight.query.busy" -}}
100 * sum(rate(packlight_stage_seconds_sum{ {{- .selector -}} , stage="forward"}[2m])) / {{ .devices }}
and sum(packlight_queue_tokens{ {{- .selector -}} })
or 0 * sum(packlight_queue_tokens{ {{- .selector -}} })
{{- end }}

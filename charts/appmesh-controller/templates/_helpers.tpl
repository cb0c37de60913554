{{- define "appmesh-controller.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "appmesh-controller.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "appmesh-controller.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "appmesh-controller.selector" -}}
app.kubernetes.io/name: {{ include "appmesh-controller.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "appmesh-controller.labels" -}}
{{ include "appmesh-controller.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end }}

{{- define "appmesh-controller.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "appmesh-controller.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "appmesh-controller.webhookService" -}}
{{ include "appmesh-controller.fullname" . }}-webhook-service
{{- end }}

{{- define "appmesh-controller.xdsService" -}}
{{ include "appmesh-controller.fullname" . }}-xds
{{- end }}

{{- define "appmesh-controller.secret" -}}
{{ include "appmesh-controller.fullname" . }}-{{ ternary "webhook-server-cert" "certificate" .Values.enableCertManager }}
{{- end }}

{{- /* The DNS names that one certificate for both services is of, as JSON. */}}
{{- define "appmesh-controller.names" -}}
{{- $names := list }}
{{- range list (include "appmesh-controller.webhookService" .) (include "appmesh-controller.xdsService" .) }}
{{- $service := printf "%s.%s" . $.Release.Namespace }}
{{- $names = concat $names (list $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service)) }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{- /* Where spans go and how; nothing where tracing is off. */}}
{{- define "appmesh-controller.tracing" -}}
{{- with .Values.tracing }}
{{- if .enabled }}
{{- $ports := dict "jaeger" 9411 "zipkin" 9411 "datadog" 8126 "opentelemetry" 4317 }}
{{- $protocols := dict "jaeger" "zipkin" "x-ray" "opentelemetry" }}
{{- $otlp := eq .provider "x-ray" }}
protocol: {{ get $protocols .provider | default .provider }}
address: {{ ternary .otlp.address .address $otlp | quote }}
port: {{ ternary .otlp.port (.port | default (get $ports .provider)) $otlp }}
{{- if has .provider (list "x-ray" "opentelemetry") }}
samplingRate: {{ .samplingRate | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Refuses the controller of Amazon's chart, by where Amazon has published it. After a digest there is no tag. */}}
{{- define "appmesh-controller.image" -}}
{{- if regexMatch "(^public\\.ecr\\.aws/appmesh|/amazon)/appmesh-controller(@|$)" (.image.repository | default "") }}
{{- fail (printf "%s.repository: %s is Amazon's controller, which needs the App Mesh API that AWS ended on 2026-09-30: push this chart's own controller (ecr-push) and name it" .value .image.repository) }}
{{- end }}
{{- $repository := required (printf "%s.repository is missing: push the image and name it" .value) .image.repository }}
{{- $repository }}
{{- if not (regexMatch "@.+:" $repository) }}
{{- with .image.tag | default .default }}:{{ . }}{{ end }}
{{- end }}
{{- end }}

"""From records to what people look at: measures, verdicts on claims, figures, tables and pages."""

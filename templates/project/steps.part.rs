/*%- for step in steps %*/
/*%- if let Some(positions) = step.opens %*/
        let parts = attention_parts(/*% if *positions > 0 %*/longest.min(/*{ positions }*/)/*% else %*/longest/*% endif %*/);
        if parts == 1 {
/*%- endif %*/
/*%- if let Some(rows) = step.opens_below %*/
        if rows < /*{ rows }*/ {
/*%- endif %*/
/*%- if step.otherwise %*/
        } else {
/*%- endif %*/
/*%- if step.barrier %*/
/*{ step.pad }*/pass.barrier();
/*%- endif %*/
/*{ step.pad }*//*{ step.call }*/
/*%- if step.closes %*/
        }
/*%- endif %*/
/*%- if step.ends %*/
        if i == LAST_STATE && !wanted {
            return;
        }
/*%- endif %*/
/*%- endfor %*/
